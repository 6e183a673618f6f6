"""The generators' options, by the name that a bundle gives its backbone."""

from __future__ import annotations

from e3dge_video.config.generators import EG3DConfig
from e3dge_video.config.stylesdf import StyleSDFConfig

GeneratorConfig = EG3DConfig | StyleSDFConfig

BACKBONES: dict[str, type[EG3DConfig] | type[StyleSDFConfig]] = {"eg3d": EG3DConfig, "stylesdf": StyleSDFConfig}
