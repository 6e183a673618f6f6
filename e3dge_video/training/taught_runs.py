"""Training runs on a frozen generator of any kind, given as a model bundle, for `e3dge-video train …`."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from e3dge_video.config.backbones import GeneratorConfig
from e3dge_video.config.encoders import LocalBranchConfig, PSPConfig
from e3dge_video.config.load import from_mapping, to_mapping
from e3dge_video.errors import ConfigError, ModelError
from e3dge_video.inversion.load import ENCODER_FILE, GENERATOR_FILE, generator_of, paper_inverter_of
from e3dge_video.models.build import build_psp, with_samples
from e3dge_video.models.encoders.hybrid import LocalBranch
from e3dge_video.models.encoders.pose_encoder import ViewpointEncoder
from e3dge_video.models.encoders.psp import PSPEncoder
from e3dge_video.models.generators.base import Generator
from e3dge_video.training.foundations import check_foundation, digest, digests, foundation_of
from e3dge_video.training.image_losses import image_losses
from e3dge_video.training.judges import first_judge
from e3dge_video.training.local_losses import PaperLoss
from e3dge_video.training.local_stage import LocalStage, TaughtLocalConfig
from e3dge_video.training.loop import LoopConfig, begin, train
from e3dge_video.training.pack import history
from e3dge_video.training.pose_stage import PoseStage, TaughtPoseConfig, TaughtPoses
from e3dge_video.training.runs import averaged, load_weights, run_config, take_over
from e3dge_video.training.taught_global_stage import TaughtGlobalConfig, TaughtGlobalStage
from e3dge_video.training.teacher import Teacher, TeacherConfig
from e3dge_video.training.teacher_pairs import TeacherPairs
from e3dge_video.training.workers import choose_device
from e3dge_video.weights.bundle import DETAIL_FILE, Bundle, BundleSpec, read_bundle, read_spec, write_bundle
from e3dge_video.weights.catalog import find_bundle
from e3dge_video.weights.metric_networks import load_recognizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaughtGlobalRun:
    """`train global` with `model`: the paper's E0."""

    model: str = "starter"  # name or folder of the generator's bundle
    samples: int | None = None  # along each ray; None: as the generator was trained
    encoder: PSPConfig = field(default_factory=PSPConfig)
    #: What E0's body begins with. "auto": IR-SE50, as the paper's, if its weights are at hand.
    body: Literal["auto", "ir-se50", "random"] = "auto"
    init: Path | None = None  # an earlier run or bundle to start from, instead
    loop: LoopConfig = field(default_factory=LoopConfig)
    stage: TaughtGlobalConfig = field(default_factory=TaughtGlobalConfig)


@dataclass(frozen=True)
class TaughtPoseRun:
    """`train pose` with `model`: the paper's E_ξ, behind its E0."""

    model: str = "starter"
    samples: int | None = None
    encoder: Path = Path("global")  # folder of E0's run
    init: Path | None = None
    loop: LoopConfig = field(default_factory=LoopConfig)
    stage: TaughtPoseConfig = field(default_factory=TaughtPoseConfig)


@dataclass(frozen=True)
class TaughtLocalRun:
    """`train local` and `train align` with the `model` of a bundle that has the paper's encoders."""

    model: str = "starter"
    samples: int | None = None
    branch: LocalBranchConfig = field(default_factory=LocalBranchConfig)
    #: Folder of an earlier run of the branch, or of a bundle that has one, to start from; what it lacks begins anew.
    init: Path | None = None
    loop: LoopConfig = field(default_factory=LoopConfig)
    stage: TaughtLocalConfig = field(default_factory=TaughtLocalConfig)


@dataclass(frozen=True)
class TaughtPackRun:
    """`train pack` with `model`: a generator's bundle with what it taught."""

    model: str = "starter"
    name: str = "taught"
    #: Folders of E0's and E_ξ's runs; None: the bundle has them.
    encoder: Path | None = None
    pose: Path | None = None
    local: Path | None = None  # folder of the local branch's run; None: as the bundle has it


def train_taught_global(run: TaughtGlobalRun, folder: Path) -> dict[str, float]:
    """Train E0; returns the held-out figures."""
    begin(run.loop)
    device = choose_device(run.loop.device)
    teacher = load_teacher(run.model, run.samples, run.stage.teacher, device)
    spec = read_spec(find_bundle(run.model))
    encoder = build_psp(run.encoder, spec.generator)
    if run.init is not None:
        load_weights(encoder, averaged(run.init), "encoder", run.init)
        body = "that of the run or bundle it started from"
    else:
        body = _start_body(encoder, run)
    image_loss = image_losses(run.stage.image).to(device)
    stage = TaughtGlobalStage(encoder.to(device), teacher, image_loss, run.stage)
    resolved = to_mapping(run) | {"image_loss": image_loss.description}
    notes = {"image loss": image_loss.description, "body of E0": body, "generator": spec.name}
    foundation = digests(generator=teacher.generator)
    return train(stage, run.loop, folder, resolved=resolved, notes=notes, foundation=foundation)


def train_taught_pose(run: TaughtPoseRun, folder: Path) -> dict[str, float]:
    """Train E_ξ; returns the held-out figures."""
    begin(run.loop)
    device = choose_device(run.loop.device)
    teacher = load_teacher(run.model, run.samples, run.stage.teacher, device)
    encoder = load_taught_encoder(run.encoder, read_spec(find_bundle(run.model)).generator)
    pose_encoder = ViewpointEncoder(*encoder.feature_shape)
    if run.init is not None:
        load_weights(pose_encoder, averaged(run.init), "pose_encoder", run.init)
    foundation = digests(generator=teacher.generator, encoder=encoder)
    stage = PoseStage(encoder.to(device), pose_encoder, TaughtPoses(teacher, run.stage))
    return train(stage, run.loop, folder, resolved=to_mapping(run), foundation=foundation)


def train_taught_local(run: TaughtLocalRun, folder: Path) -> dict[str, float]:
    """Train the local branch; returns the held-out figures."""
    begin(run.loop)
    device = choose_device(run.loop.device)
    adversarial = run.stage.adversarial is not None
    bundle = _with_samples(read_bundle(find_bundle(run.model), discriminator=adversarial), run.samples)
    model = paper_inverter_of(bundle).to(device)
    branch = LocalBranch(run.branch, model.generator.feature_width)
    if run.init is not None:
        take_over(branch, run.init)
    image_loss = image_losses(run.stage.image).to(device)
    pairs = TeacherPairs(Teacher(model.generator, run.stage.teacher))
    judge = first_judge(bundle) if adversarial else None
    loss = PaperLoss(run.stage, image_loss, None if judge is None else judge.network)
    stage = LocalStage(model, branch, pairs, loss, run.stage, run.stage.rates)
    resolved = to_mapping(run) | {"image_loss": image_loss.description}
    notes = {"image loss": image_loss.description, "generator": bundle.spec.name}
    if judge is not None:
        judge.announce()
        resolved |= judge.options
        notes["first discriminator"] = judge.origin
    return train(stage, run.loop, folder, resolved=resolved, notes=notes, foundation=foundation_of(model))


def load_teacher(model: str, samples: int | None, config: TeacherConfig, device: torch.device) -> Teacher:
    """The generator of a bundle as a teacher, on a device.

    Raises:
        ModelError: No such bundle.
    """
    generator: Generator = generator_of(_with_samples(read_bundle(find_bundle(model)), samples)).to(device)
    return Teacher(generator, config)


def _with_samples(bundle: Bundle, samples: int | None) -> Bundle:
    """The bundle whose generator takes as many samples along each ray."""
    if samples is None:
        return bundle
    return replace(bundle, spec=replace(bundle.spec, generator=with_samples(bundle.spec.generator, samples)))


def load_taught_encoder(folder: Path, generator: GeneratorConfig) -> PSPEncoder:
    """E0 of a run on a generator's own heads, or of a bundle that holds one, averaged weights, in evaluation mode.

    Raises:
        ConfigError: No such run, or the E0 of another generator.
    """
    encoder = build_psp(encoder_options(folder), generator)
    load_weights(encoder, averaged(folder), "encoder", folder)
    return encoder.eval().requires_grad_(False)


def encoder_options(folder: Path) -> PSPConfig:
    """The sizes of the E0 of a run or a bundle.

    Raises:
        ConfigError: It is none that was trained on a generator's heads.
    """
    options = run_config(folder)
    sizes: Any = options.get("psp") or ("model" in options and options.get("encoder"))
    if not isinstance(sizes, dict):
        raise ConfigError(f"{folder}: holds no E0 that was trained on a generator's own heads; give the folder of one")
    return from_mapping(PSPConfig, sizes, source=str(folder))


def pack_taught(run: TaughtPackRun, folder: Path) -> BundleSpec:
    """Write the bundle; returns its specification. Numbers stay as they are, in 32 bit.

    Raises:
        ConfigError: A run is missing, or was trained behind other networks than those it is put beside.
        ModelError: No such bundle.
    """
    bundle = read_bundle(find_bundle(run.model), discriminator=True)
    if (run.encoder is None) != (run.pose is None) or (run.encoder is None and run.local is None):
        raise ConfigError("pack: name the runs of encoder and pose, which go together, or of local, or all three")
    if run.encoder is not None and run.pose is not None:
        bundle = _with_encoders(bundle, run.encoder, run.pose)
    if run.local is not None:
        bundle = _with_local(bundle, run.local)
    return write_bundle(folder, replace(bundle.spec, name=run.name), bundle.tensors, exact=True)


def _with_encoders(bundle: Bundle, encoder_run: Path, pose_run: Path) -> Bundle:
    generator = digest(bundle.tensors[GENERATOR_FILE])
    check_foundation(encoder_run, {"generator": generator})
    options = encoder_options(encoder_run)
    encoder = build_psp(options, bundle.spec.generator)
    pose_encoder = ViewpointEncoder(*encoder.feature_shape)
    load_weights(encoder, averaged(encoder_run), "encoder", encoder_run)
    check_foundation(pose_run, {"generator": generator, **digests(encoder=encoder)})
    load_weights(pose_encoder, averaged(pose_run), "pose_encoder", pose_run)
    parts = {"encoder": encoder, "pose_encoder": pose_encoder}
    runs = {"encoder": history(encoder_run, "encoder"), "pose": history(pose_run, "pose_encoder")}
    spec = replace(
        bundle.spec,
        encoder=None,
        matte=None,
        hybrid=None,
        psp=options,
        provenance={**bundle.spec.provenance, "taught": {"by": bundle.spec.name, "runs": runs}},
    )
    stored = {f"{p}.{k}": v for p, module in parts.items() for k, v in module.state_dict().items()}
    return replace(bundle, spec=spec, tensors={**bundle.tensors, ENCODER_FILE: stored})


def _with_local(bundle: Bundle, run: Path) -> Bundle:
    """The local branch of a run in the place of the bundle's, if it has one."""
    spec = bundle.spec
    if spec.psp is None and spec.hybrid is None:
        raise ConfigError(
            f"pack: the model {spec.name} has no E0 for the local branch; name the runs of encoder and pose"
        )
    check_foundation(run, foundation_of(paper_inverter_of(bundle)))
    branch_config = from_mapping(LocalBranchConfig, run_config(run)["branch"])
    branch = LocalBranch(branch_config, generator_of(bundle).feature_width)
    load_weights(branch, averaged(run), "local", run)
    tensors = {**bundle.tensors, DETAIL_FILE: {f"local.{k}": v for k, v in branch.state_dict().items()}}
    hybrid = spec.hybrid
    if hybrid is not None:  # the released branch makes room
        hybrid = replace(hybrid, encoders=replace(hybrid.encoders, local="none"))
        kept = {k: v for k, v in tensors[ENCODER_FILE].items() if not k.startswith("encoders.local.")}
        tensors[ENCODER_FILE] = kept
    made = {**spec.provenance.get("detail", {}), "local": history(run, "local", told="detail")}
    spec = replace(spec, local=branch_config, hybrid=hybrid, provenance={**spec.provenance, "detail": made})
    return replace(bundle, spec=spec, tensors=tensors)


def _start_body(encoder: PSPEncoder, run: TaughtGlobalRun) -> str:
    """Let E0's body begin with IR-SE50 if that is wanted and at hand; returns what it begins with, in words."""
    if run.body == "random":
        return "random numbers"
    try:
        recognizer = load_recognizer()
    except ModelError as error:
        if run.body != "auto":
            raise
        log.warning("E0's body begins with random numbers instead of IR-SE50 (%s)", error)
        return "random numbers: the weights of ir-se50 are not there"
    load_weights(encoder.psp.body, {"body": recognizer.body.state_dict()}, "body", Path("ir-se50"))
    return "ir-se50"
