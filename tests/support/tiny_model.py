"""Model bundles with small random networks: every class of the starter, with either generator, none of its training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from e3dge_video.config.backbones import BACKBONES, GeneratorConfig
from e3dge_video.config.discriminators import DiscriminatorConfig
from e3dge_video.config.encoders import (
    GlobalEncoderConfig,
    HybridConfig,
    HybridEncodersConfig,
    LocalBranchConfig,
    MatteConfig,
    PSPConfig,
    StyleHeadConfig,
)
from e3dge_video.config.generators import (
    BackboneConfig,
    DecoderConfig,
    EG3DConfig,
    MappingConfig,
    RaySamplingConfig,
    SuperResolutionConfig,
    VolumeConfig,
)
from e3dge_video.config.stylesdf import SirenConfig, StyleDecoderConfig, StyleSDFConfig
from e3dge_video.geometry.face_template import MEAN_68
from e3dge_video.inversion.load import EDITS_FILE, ENCODER_FILE, EXPRESSION_KEY, GENERATOR_FILE
from e3dge_video.models.build import build_discriminator, build_generator, build_psp
from e3dge_video.models.discriminators import ViewpointDiscriminator
from e3dge_video.models.encoders.global_encoder import GlobalEncoder
from e3dge_video.models.encoders.hybrid import HybridEncoders, LocalBranch
from e3dge_video.models.encoders.pose_encoder import PoseEncoder, ViewpointEncoder
from e3dge_video.models.face_points import FacePoints
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.models.matting import MatteNet
from e3dge_video.training.toon import add_toon
from e3dge_video.weights.bundle import (
    DETAIL_FILE,
    DISCRIMINATOR_FILE,
    BundleSpec,
    EditSpec,
    ToonSpec,
    extend_bundle,
    read_bundle,
    read_spec,
    write_bundle,
)

GENERATOR = EG3DConfig(
    z_dim=189,
    w_dim=32,
    resolution=16,
    mapping=MappingConfig(layers=2, lr_multiplier=1.0, camera="none"),
    backbone=BackboneConfig(plane_resolution=16, plane_channels=8, channels=(16, 16, 16), use_noise=False),
    decoder=DecoderConfig(hidden=16, features=8),
    volume=VolumeConfig(box_warp=0.8, plane_axes="corrected"),
    rays=RaySamplingConfig(coarse=8, fine=8, near_far="auto"),
    superresolution=SuperResolutionConfig(kind="4X", channels=(8, 8), input_resolution=32),
)
ENCODER = GlobalEncoderConfig(
    input_size=32,
    stem_width=8,
    widths=(8, 16),
    blocks=(1, 1),
    pyramid_width=16,
    heads=(StyleHeadConfig(3, 4), StyleHeadConfig(3, 8)),
    window_width=4,
)
#: The paper's E0, narrow; its heads have a row for each of the tiny EG3D's.
PSP = PSPConfig(
    input_size=32,
    stages=((8, 1), (8, 1), (16, 1), (16, 1)),
    heads=(StyleHeadConfig(2, 32), StyleHeadConfig(2, 64), StyleHeadConfig(2, 128)),
)
#: A small local branch.
BRANCH = LocalBranchConfig(
    stem_width=4, base_width=8, channels=16, stacks=1, depth=1, aligner_widths=(4, 4, 8, 8), film_head="deep",
    film_width=16, coordinate_scale=2.5,
)  # fmt: skip
MATTE = MatteConfig(input_size=32, widths=(4, 8))
#: As many rows of W+ as the tiny EG3D.
STYLESDF = StyleSDFConfig(
    resolution=16,
    siren=SirenConfig(width=32, depth=1),
    decoder=StyleDecoderConfig(w_dim=24, channels=(8, 4), mapping_layers=1),
)


def write_tiny_bundle(folder: Path, config: GeneratorConfig = GENERATOR, *, seed: int = 0) -> Path:
    """Write the bundle; the head is a solid blob of mean shape, and the edits `age` and `smile` change its colours."""
    torch.manual_seed(seed)
    generator = build_generator(config)
    encoder = GlobalEncoder(ENCODER, generator.latent_shape)
    face_points = FacePoints(generator.latent_shape[1])
    face_points.mean_points.copy_(torch.as_tensor(MEAN_68))
    for layer in (face_points.linear, face_points.layers[-1]):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    with torch.no_grad():
        if isinstance(generator, EG3D):  # denser than a random decoder would be, so that there is something to see
            generator.decoder.output.weight[0].mul_(20)
            generator.decoder.output.bias[0].fill_(20)
        for head in (*encoder.heads, *encoder.windows):
            head.out.weight.normal_(0, 0.05)
    modules = {
        "encoder": encoder,
        "pose_encoder": PoseEncoder(*encoder.feature_shape),
        "face_points": face_points,
        "matte": MatteNet(MATTE),
    }
    rows, width = generator.latent_shape
    edits = {name: 0.5 * torch.randn(rows, width) for name in ("age", "smile")}
    edits[EXPRESSION_KEY] = torch.linalg.qr(torch.randn(width, 4)).Q.T.contiguous()
    [backbone] = [name for name, kind in BACKBONES.items() if isinstance(config, kind)]
    spec = BundleSpec(
        name="tiny",
        backbone=backbone,
        licence="Apache-2.0",
        resolution=config.image_resolution,
        neural_resolution=config.resolution,
        crop="eg3d",
        generator=config,
        encoder=ENCODER,
        matte=MATTE,
        edits={name: EditSpec("a test", (-2.0, 2.0)) for name in ("age", "smile")},
        provenance={"data": "none: random weights"},
    )
    tensors = {
        GENERATOR_FILE: generator.state_dict(),
        ENCODER_FILE: {f"{part}.{k}": v for part, module in modules.items() for k, v in module.state_dict().items()},
        EDITS_FILE: edits,
    }
    write_bundle(folder, spec, tensors)
    return folder


def write_tiny_toon(folder: Path) -> Path:
    """Give a tiny bundle a toon part: the last layers of its generator, with other weights."""
    bundle = read_bundle(folder)
    photo = bundle.tensors[GENERATOR_FILE]
    random = torch.Generator().manual_seed(1)
    drawn = ("decoder.", "superresolution.", "backbone.blocks.2.")
    toon = {
        key: value + 0.3 * torch.randn(value.shape, generator=random)
        if key.startswith(drawn) and key.endswith(("weight", "bias"))
        else value
        for key, value in photo.items()
    }
    add_toon(folder, folder, photo, toon, ToonSpec("tiny cartoons", "CC0-1.0"), {"data": "none: random weights"})
    return folder


def give_discriminator(folder: Path, kind: Literal["dual", "image"], *, seed: int = 5) -> Path:
    """Give a tiny bundle a random discriminator of its generator's pictures."""
    torch.manual_seed(seed)
    levels = read_spec(folder).resolution.bit_length() - 2
    dual = {"camera_dim": 25, "mapping_layers": 2, "clamp": 256.0} if kind == "dual" else {}
    config = DiscriminatorConfig(kind, (8,) * levels, **dual)
    tensors = {DISCRIMINATOR_FILE: build_discriminator(config).state_dict()}
    extend_bundle(folder, folder, tensors, provenance={}, discriminator=config)
    return folder


def write_tiny_paper(folder: Path, config: GeneratorConfig = GENERATOR, *, local: bool = True) -> Path:
    """A tiny bundle with the paper's E0 and E_ξ as its generator teaches them, and a local branch if wanted."""
    bundle = read_bundle(write_tiny_bundle(folder, config))
    encoder = build_psp(PSP, config)
    encoder.mean_latents.copy_(build_generator(config).map(torch.randn(16, config.z_dim)).mean(dim=0).detach())
    pose_encoder = ViewpointEncoder(*encoder.feature_shape)
    with torch.no_grad():
        pose_encoder.out.weight.normal_(0, 0.01)
    parts = {"encoder": encoder, "pose_encoder": pose_encoder}
    tensors = {
        GENERATOR_FILE: bundle.tensors[GENERATOR_FILE],
        ENCODER_FILE: {f"{name}.{k}": v for name, module in parts.items() for k, v in module.state_dict().items()},
        EDITS_FILE: {k: v for k, v in bundle.tensors[EDITS_FILE].items() if k != EXPRESSION_KEY},
    }
    spec = replace(bundle.spec, encoder=None, matte=None, psp=PSP)
    if local:
        branch = _speaking(LocalBranch(BRANCH, build_generator(config).feature_width))
        spec = replace(spec, local=BRANCH)
        tensors[DETAIL_FILE] = {f"local.{k}": v for k, v in branch.state_dict().items()}
    (folder / "model.json").unlink()
    write_bundle(folder, spec, tensors, exact=True)
    return folder


def write_tiny_hybrid(folder: Path, config: StyleSDFConfig = STYLESDF) -> Path:
    """A tiny StyleSDF with encoders as E3DGE released them, narrow, and a local branch that took the released one's
    place.
    """
    assert config.decoder is not None
    bundle = read_bundle(write_tiny_bundle(folder, config))
    rows, widths = (config.field_rows, config.decoder_rows), (config.siren.width, config.decoder.w_dim)
    sizes = HybridEncodersConfig(rows[0], widths[0], rows[1], widths[1], local="none", stages=PSP.stages)
    hybrid = HybridConfig(sizes, viewpoints=(8, 8, 8, 8))
    viewpoints = ViewpointDiscriminator(hybrid.viewpoints)
    with torch.no_grad():
        viewpoints.output.weight[1:].mul_(0.2)  # not too far from the front
    parts = {"encoders": HybridEncoders(sizes), "viewpoints": viewpoints}
    branch = _speaking(LocalBranch(BRANCH, config.siren.width))
    tensors = {
        GENERATOR_FILE: bundle.tensors[GENERATOR_FILE],
        ENCODER_FILE: {f"{name}.{k}": v for name, module in parts.items() for k, v in module.state_dict().items()},
        EDITS_FILE: {k: v for k, v in bundle.tensors[EDITS_FILE].items() if k != EXPRESSION_KEY},
        DETAIL_FILE: {f"local.{k}": v for k, v in branch.state_dict().items()},
    }
    spec = replace(bundle.spec, encoder=None, matte=None, hybrid=hybrid, local=BRANCH, crop="ffhq")
    (folder / "model.json").unlink()
    write_bundle(folder, spec, tensors, exact=True)
    return folder


def _speaking(branch: LocalBranch) -> LocalBranch:
    """The branch with something to say: a fresh one's FiLM is the identity."""
    for parameter in branch.film_head.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return branch
