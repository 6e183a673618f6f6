"""Training runs: a configuration each, put together from data, networks and a stage, for `e3dge-video train …`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from e3dge_video.config.encoders import GlobalEncoderConfig, LocalBranchConfig, MatteConfig
from e3dge_video.config.generators import EG3DConfig
from e3dge_video.config.load import from_mapping, to_mapping
from e3dge_video.errors import ConfigError
from e3dge_video.inversion.load import ENCODER_FILE, GENERATOR_FILE, load_inverter
from e3dge_video.models.attributes import AttributeNet
from e3dge_video.models.encoders.global_encoder import GlobalEncoder
from e3dge_video.models.encoders.hybrid import LocalBranch
from e3dge_video.models.encoders.pose_encoder import PoseEncoder
from e3dge_video.models.encoders.residual_blender import ResidualBlender
from e3dge_video.models.face_points import FacePoints
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.models.matting import MatteNet
from e3dge_video.training.attribute_stage import AttributeConfig, AttributeStage
from e3dge_video.training.blend_stage import BlendStage, BlendStageConfig
from e3dge_video.training.foundations import digests, foundation_of
from e3dge_video.training.generator_stage import PointConfig, PointStage, initialise_density
from e3dge_video.training.global_stage import GlobalConfig, GlobalStage, read_metric
from e3dge_video.training.head_views import HeadViews
from e3dge_video.training.lifted_stage import LiftedStage
from e3dge_video.training.local_losses import HeadLoss
from e3dge_video.training.local_stage import LocalStage, LocalStageConfig
from e3dge_video.training.loop import LoopConfig, begin, train
from e3dge_video.training.mapping_stage import MappingStage, MappingStageConfig
from e3dge_video.training.matte_stage import MatteStage, MatteStageConfig
from e3dge_video.training.points_stage import FacePointsConfig, FacePointsStage
from e3dge_video.training.pose_stage import HeadPoseConfig, HeadPoses, PoseStage
from e3dge_video.training.render_stage import RenderConfig, RenderStage
from e3dge_video.training.view_pairs import HeadViewPairs
from e3dge_video.training.workers import choose_device
from e3dge_video.weights.bundle import DETAIL_FILE, read_bundle, read_spec


@dataclass(frozen=True)
class GeneratorRun:
    """`train generator`: the mapping, then points, then rays and super-resolution."""

    generator: EG3DConfig = field(default_factory=EG3DConfig)
    phase: Literal["mapping", "points", "render"] = "points"
    init: Path | None = None  # folder of an earlier generator run to start from; its mapping may be narrower
    loop: LoopConfig = field(default_factory=LoopConfig)
    mapping: MappingStageConfig = field(default_factory=MappingStageConfig)
    points: PointConfig = field(default_factory=PointConfig)
    render: RenderConfig = field(default_factory=RenderConfig)


@dataclass(frozen=True)
class LandmarkRun:
    """`train landmarks`: 3D landmarks of a code."""

    generator: Path = Path("generator")  # folder of the generator run
    loop: LoopConfig = field(default_factory=LoopConfig)
    landmarks: FacePointsConfig = field(default_factory=FacePointsConfig)


@dataclass(frozen=True)
class GlobalRun:
    """`train global`: E0, and E_ξ with it."""

    generator: Path = Path("generator")
    face_points: Path = Path("landmarks")
    #: Folder of the mapping's run: codes are compared by what its reader sees in them, so that E0 can be trained before
    #: G can draw. None: by what G draws.
    reader: Path | None = None
    encoder: GlobalEncoderConfig = field(default_factory=GlobalEncoderConfig)
    init: Path | None = None
    loop: LoopConfig = field(default_factory=LoopConfig)
    stage: GlobalConfig = field(default_factory=GlobalConfig)


@dataclass(frozen=True)
class LocalRun:
    """`train local`: E1 and the FiLM head on the source view; `train align`: E_ADA and the fusion on two views."""

    #: Name or folder of the bundle that has everything before: G, E0, E_ξ, matte.
    model: str = "starter"
    init: Path | None = None  # folder of an earlier run of the branch to start from; parts that it lacks begin anew
    branch: LocalBranchConfig = field(default_factory=LocalBranchConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    stage: LocalStageConfig = field(default_factory=LocalStageConfig)


@dataclass(frozen=True)
class BlendRun:
    """`train blend`: what may be shown of a picture's residual from elsewhere, and under an edit."""

    model: str = "starter"  # name or folder of the bundle that it will belong to
    widths: tuple[int, ...] = (24, 32, 48, 64)
    init: Path | None = None
    loop: LoopConfig = field(default_factory=LoopConfig)
    stage: BlendStageConfig = field(default_factory=BlendStageConfig)


@dataclass(frozen=True)
class PoseRun:
    """`train pose`: E_ξ alone, behind an E0 that is kept."""

    encoder: Path = Path("global")  # folder of E0's run
    init: Path | None = None
    loop: LoopConfig = field(default_factory=LoopConfig)
    stage: HeadPoseConfig = field(default_factory=HeadPoseConfig)


@dataclass(frozen=True)
class MatteRun:
    """`train matte`: the foreground matte."""

    matte: MatteConfig = field(default_factory=MatteConfig)
    init: Path | None = None
    loop: LoopConfig = field(default_factory=LoopConfig)
    stage: MatteStageConfig = field(default_factory=MatteStageConfig)


@dataclass(frozen=True)
class AttributeRun:
    """`train attributes`: the reader that evaluation measures edits with."""

    loop: LoopConfig = field(default_factory=LoopConfig)
    stage: AttributeConfig = field(default_factory=AttributeConfig)


def train_generator(run: GeneratorRun, folder: Path) -> dict[str, float]:
    """Train G; returns the held-out figures."""
    begin(run.loop)
    generator = EG3D(run.generator)
    if run.init is not None:
        _start_from(generator, run.init)
    else:
        initialise_density(generator, run.points.density_scale)
    if run.phase == "mapping":
        return train(MappingStage(generator, run.mapping), run.loop, folder, resolved=to_mapping(run))
    if run.phase == "points":
        data = HeadViews(run.points.data, run.points.held_out)
        _check_latents(generator, data)
        return train(PointStage(generator, data, run.points), run.loop, folder, resolved=to_mapping(run))
    data = HeadViews(run.render.data, run.render.held_out)
    _check_latents(generator, data)
    return train(RenderStage(generator, data, run.render), run.loop, folder, resolved=to_mapping(run))


def train_landmarks(run: LandmarkRun, folder: Path) -> dict[str, float]:
    """Train the 3D landmarks of a code."""
    begin(run.loop)
    generator = load_generator_run(run.generator)
    data = HeadViews(run.landmarks.data, run.landmarks.held_out)
    _check_latents(generator, data)
    stage = FacePointsStage(FacePoints(generator.latent_shape[1]), generator, data, run.landmarks)
    return train(stage, run.loop, folder, resolved=to_mapping(run))


def train_global(run: GlobalRun, folder: Path) -> dict[str, float]:
    """Train E0 and E_ξ."""
    begin(run.loop)
    device = choose_device(run.loop.device)
    generator = load_generator_run(run.generator).to(device)
    face_points = FacePoints(generator.latent_shape[1])
    face_points.load_state_dict(averaged(run.face_points)["face_points"])
    encoder = GlobalEncoder(run.encoder, generator.latent_shape)
    pose_encoder = PoseEncoder(*encoder.feature_shape)
    if run.init is not None:
        weights = averaged(run.init)
        encoder.load_state_dict(weights["encoder"])
        pose_encoder.load_state_dict(weights["pose_encoder"])
    data = HeadViews(run.stage.data, run.stage.held_out)
    _check_latents(generator, data)
    visible = None if run.reader is None else read_metric(averaged(run.reader)["reader"]["weight"])
    stage = GlobalStage(
        encoder, pose_encoder, generator, face_points.to(device), data, run.stage, run.loop.steps, visible
    )
    return train(stage, run.loop, folder, resolved=to_mapping(run))


def train_pose(run: PoseRun, folder: Path) -> dict[str, float]:
    """Train E_ξ."""
    begin(run.loop)
    weights = averaged(run.encoder)
    sizes = run_config(run.encoder).get("encoder")
    if not isinstance(sizes, dict) or "encoder" not in weights:
        raise ConfigError(f"{run.encoder}: holds no E0; give the folder of a run of `train global`, or of a bundle")
    options = from_mapping(GlobalEncoderConfig, sizes, source=str(run.encoder))
    encoder = GlobalEncoder(options, tuple(weights["encoder"]["mean_latents"].shape))
    load_weights(encoder, weights, "encoder", run.encoder)
    pose_encoder = PoseEncoder(*encoder.feature_shape)
    if run.init is not None:
        load_weights(pose_encoder, averaged(run.init), "pose_encoder", run.init)
    source = HeadPoses(HeadViews(run.stage.data, run.stage.held_out), run.stage)
    foundation = digests(encoder=encoder)
    stage = PoseStage(encoder.to(choose_device(run.loop.device)), pose_encoder, source)
    return train(stage, run.loop, folder, resolved=to_mapping(run), foundation=foundation)


def train_local(run: LocalRun, folder: Path) -> dict[str, float]:
    """Train the local branch."""
    begin(run.loop)
    model = load_inverter(run.model).to(choose_device(run.loop.device))
    branch = LocalBranch(run.branch, model.generator.feature_width)
    if run.init is not None:
        take_over(branch, run.init)
    options = run.stage
    pairs, edits = HeadViewPairs(options.pairs), HeadViewPairs(options.edits) if options.edit_share else None
    stage: LocalStage | LiftedStage
    if options.views == "lifted":
        stage = LiftedStage(model, branch, pairs, options, options, edits, options.edit_share)
    else:
        stage = LocalStage(model, branch, pairs, HeadLoss(options), options, edits=edits, edit_share=options.edit_share)
    return train(stage, run.loop, folder, resolved=to_mapping(run), foundation=foundation_of(model))


def train_blend(run: BlendRun, folder: Path) -> dict[str, float]:
    """Train the residual blend."""
    begin(run.loop)
    blender = ResidualBlender(run.widths)
    if run.init is not None:
        load_weights(blender, averaged(run.init), "blender", run.init)
    model = load_inverter(run.model)
    stage = BlendStage(model, blender, run.stage, folder / "examples")
    return train(stage, run.loop, folder, resolved=to_mapping(run), foundation=foundation_of(model))


def train_matte(run: MatteRun, folder: Path) -> dict[str, float]:
    """Train the matte."""
    begin(run.loop)
    matte = MatteNet(run.matte)
    if run.init is not None:
        matte.load_state_dict(averaged(run.init)["matte"])
    stage = MatteStage(matte, HeadViews(run.stage.data, run.stage.held_out), run.stage)
    return train(stage, run.loop, folder, resolved=to_mapping(run))


def train_attributes(run: AttributeRun, folder: Path) -> dict[str, float]:
    """Train the attribute reader."""
    begin(run.loop)
    data = HeadViews(run.stage.data, run.stage.held_out)
    stage = AttributeStage(AttributeNet(len(data.attribute_names)), data, run.stage)
    return train(stage, run.loop, folder, resolved=to_mapping(run))


def averaged(folder: Path) -> dict[str, dict[str, Any]]:
    """Averaged weights of a run: of its end, or of its last checkpoint while it goes on; or those of a bundle.

    Wherever a configuration names the folder of an earlier run, that of a model bundle serves as well: a shipped model
    can be trained further.
    """
    final, checkpoint = folder / "averaged.pt", folder / "checkpoint.pt"
    if final.exists():
        weights: dict[str, dict[str, Any]] = torch.load(final, map_location="cpu", weights_only=True)
        return weights
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        return dict(state["averages"])
    if (folder / "model.json").exists():
        tensors = read_bundle(folder).tensors
        parts: dict[str, dict[str, Any]] = {"generator": dict(tensors[GENERATOR_FILE])}
        for name, value in (tensors.get(ENCODER_FILE, {}) | tensors.get(DETAIL_FILE, {})).items():
            part, key = name.removeprefix("encoders.").split(".", 1)  # E3DGE's own stand one level deeper
            parts.setdefault(part, {})[key] = value
        return parts
    raise ConfigError(
        f"{folder}: no training run (averaged.pt or checkpoint.pt) and no model bundle here; train this part first"
    )


def load_weights(module: nn.Module, weights: Mapping[str, Mapping[str, Any]], part: str, source: Path) -> None:
    """Let a module take over a part of a run's or bundle's weights.

    Raises:
        ConfigError: There is no such part, or one of other sizes.
    """
    if part not in weights:
        raise ConfigError(
            f"{source}: holds no {part}, only {', '.join(weights)}; give the folder of the run that has it"
        )
    try:
        module.load_state_dict(weights[part])
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ConfigError(f"{source}: its {part} is not of the configured sizes: {reason}") from None


def run_config(folder: Path) -> dict[str, Any]:
    """The resolved configuration of a run, as plain values; of a bundle, that of its networks."""
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        return dict(json.loads(torch.load(checkpoint, map_location="cpu", weights_only=True)["config"]))
    if (folder / "model.json").exists():
        return to_mapping(read_spec(folder))
    raise ConfigError(f"{folder}: no training run (checkpoint.pt) and no model bundle here; train this part first")


def load_generator_run(folder: Path) -> EG3D:
    """The generator of a run, averaged weights, in evaluation mode.

    Raises:
        ConfigError: No run or bundle, or a bundle of a generator that is not trained here.
    """
    options = run_config(folder)
    backbone = options.get("backbone", "eg3d")  # only bundles name it
    if backbone != "eg3d":
        raise ConfigError(f"{folder}: its generator is a {backbone} one; what is trained here is eg3d")
    generator = EG3D(from_mapping(EG3DConfig, options["generator"], source=str(folder)))
    generator.load_state_dict(averaged(folder)["generator"])
    return generator.eval().requires_grad_(False)


def _start_from(generator: EG3D, folder: Path) -> None:
    """Take over an earlier run's weights; a wider mapping begins by computing what the earlier one did."""
    earlier = load_generator_run(folder)
    weights = {k: v for k, v in earlier.state_dict().items() if not k.startswith("mapping.")}
    try:
        generator.mapping.start_from(earlier.mapping)
        generator.load_state_dict(weights | {f"mapping.{k}": v for k, v in generator.mapping.state_dict().items()})
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ConfigError(f"{folder}: its generator is not of the configured sizes: {reason}") from None


def take_over(branch: LocalBranch, folder: Path) -> None:
    """Start from the branch of an earlier run or of a bundle, which may lack whole parts of this one, such as E_ADA.

    Raises:
        ConfigError: There is none, or one of other sizes.
    """
    weights = averaged(folder).get("local")
    if weights is None:
        raise ConfigError(
            f"{folder}: holds no local branch; give the folder of a run of `train local` or `train align`"
        )
    parts = {key.partition(".")[0] for key in weights}
    wanted = {key for key in branch.state_dict() if key.partition(".")[0] in parts}
    try:
        branch.load_state_dict(branch.state_dict() | {key: weights[key] for key in wanted})
    except (KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ConfigError(f"{folder}: its local branch is not of the configured sizes: {reason}") from None


def _check_latents(generator: EG3D, data: HeadViews) -> None:
    if generator.config.z_dim != data.z_dim:
        raise ConfigError(
            f"the generator's z has {generator.config.z_dim} numbers, the data set's {data.z_dim}; "
            f"set generator.z_dim={data.z_dim}"
        )
