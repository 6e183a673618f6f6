"""From options to networks: the only place that decides which generator it is."""

from __future__ import annotations

from e3dge_video.config.backbones import GeneratorConfig
from e3dge_video.config.generators import EG3DConfig
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.models.generators.stylesdf.generator import StyleSDF


def build_generator(config: GeneratorConfig) -> EG3D | StyleSDF:
    """The generator of these options, not yet trained."""
    return EG3D(config) if isinstance(config, EG3DConfig) else StyleSDF(config)
