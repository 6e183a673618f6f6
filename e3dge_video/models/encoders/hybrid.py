"""All encoders of the released StyleSDF model, under one roof: what one checkpoint of ours holds."""

from __future__ import annotations

from torch import nn

from e3dge_video.config.encoders import HybridEncodersConfig
from e3dge_video.models.encoders.fusion import FilmHead, LinearFilmHead, SFTFusion
from e3dge_video.models.encoders.local_encoder import LocalEncoder
from e3dge_video.models.encoders.psp import HybridPSP
from e3dge_video.models.encoders.residual_aligner import ResidualAligner


class LocalBranch(nn.Module):
    """E1, E_ADA and the way from their features to a modulation of the generator's (E3DGE, sections 4.2 and 4.3)."""

    def __init__(self, config: HybridEncodersConfig) -> None:
        super().__init__()
        self.encoder = LocalEncoder(config.stem_norm)
        self.aligner = ResidualAligner()
        self.fusion = SFTFusion() if config.local == "hybrid" else None
        head = FilmHead if config.film_head == "residual" else LinearFilmHead
        self.film_head = head(features=config.field_width)


class HybridEncoders(nn.Module):
    """E0 and, unless the model was trained without, the local branch."""

    def __init__(self, config: HybridEncodersConfig) -> None:
        super().__init__()
        self.config = config
        self.global_encoder = HybridPSP(
            config.field_rows, config.field_width, config.decoder_rows, config.decoder_width
        )
        self.local = None if config.local == "none" else LocalBranch(config)
