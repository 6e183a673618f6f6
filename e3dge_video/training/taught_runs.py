"""Training runs on a frozen generator of any kind, given as a model bundle, for `e3dge-video train …`."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from e3dge_video.config.backbones import GeneratorConfig
from e3dge_video.config.encoders import PSPConfig
from e3dge_video.config.load import from_mapping, to_mapping
from e3dge_video.errors import ConfigError, ModelError
from e3dge_video.inversion.load import ENCODER_FILE, generator_of
from e3dge_video.models.build import build_psp, with_samples
from e3dge_video.models.encoders.pose_encoder import ViewpointEncoder
from e3dge_video.models.encoders.psp import PSPEncoder
from e3dge_video.models.generators.base import Generator
from e3dge_video.training.image_losses import image_losses
from e3dge_video.training.loop import LoopConfig, train
from e3dge_video.training.pack import history
from e3dge_video.training.pose_stage import PoseStage, TaughtPoseConfig, TaughtPoses
from e3dge_video.training.runs import averaged, load_weights, run_config
from e3dge_video.training.taught_global_stage import TaughtGlobalConfig, TaughtGlobalStage
from e3dge_video.training.teacher import Teacher, TeacherConfig
from e3dge_video.training.workers import choose_device
from e3dge_video.weights.bundle import BundleSpec, read_bundle, read_spec, write_bundle
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
class TaughtPackRun:
    """`train pack` with `model`: a generator's bundle with the E0 and E_ξ that it taught."""

    model: str = "starter"
    name: str = "taught"
    encoder: Path = Path("global")
    pose: Path = Path("pose")


def train_taught_global(run: TaughtGlobalRun, folder: Path) -> dict[str, float]:
    """Train E0; returns the held-out figures."""
    torch.manual_seed(run.loop.seed)
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
    return train(stage, run.loop, folder, resolved=resolved, notes=notes)


def train_taught_pose(run: TaughtPoseRun, folder: Path) -> dict[str, float]:
    """Train E_ξ; returns the held-out figures."""
    torch.manual_seed(run.loop.seed)
    device = choose_device(run.loop.device)
    teacher = load_teacher(run.model, run.samples, run.stage.teacher, device)
    encoder = load_taught_encoder(run.encoder, read_spec(find_bundle(run.model)).generator)
    pose_encoder = ViewpointEncoder(*encoder.feature_shape)
    if run.init is not None:
        load_weights(pose_encoder, averaged(run.init), "pose_encoder", run.init)
    stage = PoseStage(encoder.to(device), pose_encoder, TaughtPoses(teacher, run.stage))
    return train(stage, run.loop, folder, resolved=to_mapping(run))


def load_teacher(model: str, samples: int | None, config: TeacherConfig, device: torch.device) -> Teacher:
    """The generator of a bundle as a teacher, on a device.

    Raises:
        ModelError: No such bundle.
    """
    bundle = read_bundle(find_bundle(model))
    if samples is not None:
        options = with_samples(bundle.spec.generator, samples)
        bundle = replace(bundle, spec=replace(bundle.spec, generator=options))
    generator: Generator = generator_of(bundle).to(device)
    return Teacher(generator, config)


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
        ConfigError: A run is missing, or was trained on another generator.
        ModelError: No such bundle.
    """
    bundle = read_bundle(find_bundle(run.model))
    for part in (run.encoder, run.pose):
        taught_by = run_config(part).get("model")
        if taught_by is not None and read_spec(find_bundle(str(taught_by))).files != bundle.spec.files:
            raise ConfigError(
                f"{part}: was trained on the model {taught_by}, not on {run.model}; pack it with that one"
            )
    options = encoder_options(run.encoder)
    encoder = build_psp(options, bundle.spec.generator)
    pose_encoder = ViewpointEncoder(*encoder.feature_shape)
    load_weights(encoder, averaged(run.encoder), "encoder", run.encoder)
    load_weights(pose_encoder, averaged(run.pose), "pose_encoder", run.pose)
    parts = {"encoder": encoder, "pose_encoder": pose_encoder}
    runs = {"encoder": history(run.encoder, "encoder"), "pose": history(run.pose, "pose_encoder")}
    spec = replace(
        bundle.spec,
        name=run.name,
        encoder=None,
        matte=None,
        hybrid=None,
        psp=options,
        provenance={**bundle.spec.provenance, "taught": {"by": bundle.spec.name, "runs": runs}},
    )
    tensors = dict(bundle.tensors)
    tensors[ENCODER_FILE] = {f"{p}.{k}": v for p, module in parts.items() for k, v in module.state_dict().items()}
    return write_bundle(folder, spec, tensors, exact=True)


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
