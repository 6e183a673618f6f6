"""The local branch, and all encoders of the released StyleSDF model under one roof: what its checkpoint holds."""

from __future__ import annotations

from torch import nn

from e3dge_video.config.encoders import HybridEncodersConfig, LocalBranchConfig
from e3dge_video.models.encoders.fusion import SFTFusion, film_head
from e3dge_video.models.encoders.local_encoder import LocalEncoder
from e3dge_video.models.encoders.psp import HybridPSP
from e3dge_video.models.encoders.residual_aligner import ResidualAligner


class LocalBranch(nn.Module):
    """E1, E_ADA and the way from their features to a modulation of the generator's (E3DGE, sections 4.2 and 4.3).

    Args:
        config: Sizes, and which ways of alignment there are.
        features: Channels of the generator's features f_G.
    """

    def __init__(self, config: LocalBranchConfig, features: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = LocalEncoder(
            config.stem_norm,
            stem_width=config.stem_width,
            base_width=config.base_width,
            channels=config.channels,
            stacks=config.stacks,
            depth=config.depth,
            residual_skip=config.residual_skip,
        )
        channels = config.feature_channels
        self.aligner = ResidualAligner(config.aligner_widths) if config.mode in ("aligned", "hybrid") else None
        self.fusion = SFTFusion(channels) if config.mode == "hybrid" else None
        self.film_head = film_head(
            config.film_head,
            channels,
            features,
            scale=config.coordinate_scale,
            limits=(config.scale_limit, config.shift_limit),
            width=config.film_width,
        )


class HybridEncoders(nn.Module):
    """E0 and, unless the model was trained without, the local branch."""

    def __init__(self, config: HybridEncodersConfig) -> None:
        super().__init__()
        self.config = config
        self.global_encoder = HybridPSP(
            config.field_rows, config.field_width, config.decoder_rows, config.decoder_width, config.stages
        )
        branch = config.branch()
        self.local = None if branch is None else LocalBranch(branch, config.field_width)
