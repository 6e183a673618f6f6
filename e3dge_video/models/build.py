"""From options to networks: the only place that decides which generator it is, and what belongs to it."""

from __future__ import annotations

import math
from dataclasses import replace

from e3dge_video.config.backbones import GeneratorConfig
from e3dge_video.config.discriminators import DiscriminatorConfig
from e3dge_video.config.encoders import PSPConfig
from e3dge_video.config.generators import EG3DConfig
from e3dge_video.errors import ConfigError
from e3dge_video.geometry.cameras import STYLESDF_RADIUS
from e3dge_video.geometry.views import Orbit
from e3dge_video.models.discriminators import DualDiscriminator, ImageDiscriminator
from e3dge_video.models.encoders.psp import HybridPSP, PSPEncoder, RowPSP
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.models.generators.stylesdf.generator import StyleSDF


def build_generator(config: GeneratorConfig) -> EG3D | StyleSDF:
    """The generator of these options, not yet trained."""
    return EG3D(config) if isinstance(config, EG3DConfig) else StyleSDF(config)


def build_discriminator(config: DiscriminatorConfig) -> DualDiscriminator | ImageDiscriminator:
    """The discriminator of these options, not yet trained."""
    if config.kind == "image":
        return ImageDiscriminator(config.channels, group=config.group)
    return DualDiscriminator(
        config.channels,
        camera_dim=config.camera_dim,
        mapping_layers=config.mapping_layers,
        group=config.group,
        clamp=config.clamp,
    )


def with_samples(config: GeneratorConfig, samples: int) -> GeneratorConfig:
    """The options of a generator that takes as many samples along each ray (of EG3D's: in its first pass)."""
    if isinstance(config, EG3DConfig):
        return replace(config, rays=replace(config.rays, coarse=samples))
    return replace(config, volume=replace(config.volume, samples=samples))


def orbit_of(config: GeneratorConfig) -> Orbit:
    """The sphere, around the point looked at, that passes through a generator's frontal camera."""
    if isinstance(config, EG3DConfig):
        camera = config.camera
        return Orbit(math.dist((0.0, 0.0, camera.radius), camera.pivot), camera.pivot, camera.focal)
    half_fov = math.radians(config.viewpoint.half_fov_deg)
    return Orbit(STYLESDF_RADIUS, (0.0, 0.0, 0.0), 0.5 / math.tan(half_fov))


def build_psp(config: PSPConfig, generator: GeneratorConfig) -> PSPEncoder:
    """The paper's E0 for a generator, not yet trained.

    Raises:
        ConfigError: Heads for another number of rows than the generator's codes have.
    """
    rows, width = generator.latent_shape
    psp: HybridPSP | RowPSP
    if isinstance(generator, EG3DConfig):
        levels = [head.level for head in config.heads for _ in range(head.rows)]
        if len(levels) != rows:
            raise ConfigError(
                f"encoder.heads predict {len(levels)} rows, the generator's codes have {rows}; let the rows add up"
            )
        psp = RowPSP(levels, width, config.stages)
    else:
        if generator.decoder is None:
            raise ConfigError("the generator is a volume renderer alone; E0 needs the full model with its decoder")
        psp = HybridPSP(
            generator.field_rows, generator.siren.width, generator.decoder_rows, generator.decoder.w_dim, config.stages
        )
    return PSPEncoder(psp, (rows, width), config.input_size)
