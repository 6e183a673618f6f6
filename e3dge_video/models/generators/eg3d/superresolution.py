"""EG3D's super-resolution: two StyleGAN2 blocks from the rendered features to the final image.

Chan et al. 2022, section 4.3. The blocks are steered by the last latent row alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from e3dge_video.config.generators import SuperResolutionConfig
from e3dge_video.errors import ConfigError
from e3dge_video.models.fir import resize_bilinear
from e3dge_video.models.stylegan2 import SynthesisBlock


class SuperResolution(nn.Module):
    """Rendered features and colour → image of 2 or 4 times the module's input size.

    Args:
        features: Channels of the rendered features.
        w_dim: Width of a latent row (512 in every released model).
    """

    def __init__(self, config: SuperResolutionConfig, features: int, w_dim: int) -> None:
        super().__init__()
        self.config = config
        doubles = config.first_block_doubles
        first, second = config.widths
        inner = config.input_size * (2 if doubles else 1)
        owns_noise = config.noise != "none"
        self.blocks = nn.ModuleList(
            [
                SynthesisBlock(features, first, w_dim, inner, 3, up=doubles, use_noise=owns_noise, clamp=config.clamp),
                SynthesisBlock(first, second, w_dim, 2 * inner, 3, last=True, use_noise=owns_noise, clamp=config.clamp),
            ]
        )

    def forward(self, rgb: Tensor, features: Tensor, latents: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
        """Rendering → final image; inputs are left as is.

        Args:
            rgb: [B, 3, R, R]
            features: [B, C, R, R]
            latents: [B, L, W]
            dtype: Of the features inside; the image itself is summed as `rgb` is. None: as they are.

        Returns:
            [B, 3, H, H]
        """
        size, target = features.shape[-1], self.config.input_size
        if self.config.kind == "4X" and size > target:
            raise ConfigError(
                f"super-resolution 4X takes at most {target} px, got {size}; render at a lower resolution"
            )
        if size != target:
            features = resize_bilinear(features, target, antialias=self.config.antialias)
            rgb = resize_bilinear(rgb, target, antialias=self.config.antialias)
        return self.refine(rgb, features if dtype is None else features.to(dtype), latents)

    def refine(self, rgb: Tensor, features: Tensor, latents: Tensor) -> Tensor:
        """The two blocks alone, for inputs already at the module's scale (a whole image or a patch of one)."""
        rows = latents[:, -1:].expand(-1, 3, -1)
        x: Tensor = features
        image: Tensor = rgb
        for block in self.blocks:
            x, image = block(x, image, rows, noise=self.config.noise)
        return image
