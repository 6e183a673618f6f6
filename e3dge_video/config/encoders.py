"""Sizes of the encoders."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class StyleHeadConfig:
    """One head of E0: how many latent rows it predicts, and from which pyramid level."""

    rows: int
    level: int  # side of the feature map it reads


@dataclass(frozen=True)
class WindowConfig:
    """A close-up that E0 looks at in the full-resolution crop, found through the landmarks."""

    part: Literal["eyes", "mouth"]
    height: int  # pixels given to the close-up branch
    width: int
    #: Width of the window in units of the distance between the eye centres.
    span: float


@dataclass(frozen=True)
class GlobalEncoderConfig:
    """E0 (§4.1, §7.1): IR-SE body, feature pyramid, style heads; close-ups carry the expression.

    Defaults are those of the starter; the paper's E0 is `widths (64, 128, 256, 512)`, `blocks (3, 4, 14, 3)` at 256 px
    with one head per latent row.
    """

    input_size: int = 128
    stem_width: int = 32
    widths: tuple[int, ...] = (64, 128, 192)
    blocks: tuple[int, ...] = (2, 2, 3)
    pyramid_width: int = 128
    heads: tuple[StyleHeadConfig, ...] = (StyleHeadConfig(4, 8), StyleHeadConfig(4, 16), StyleHeadConfig(4, 32))
    windows: tuple[WindowConfig, ...] = (WindowConfig("eyes", 32, 80, 2.2), WindowConfig("mouth", 48, 64, 1.5))
    window_width: int = 32


@dataclass(frozen=True)
class PSPConfig:
    """The paper's E0 for any generator: IR-SE50 body, pyramid, one head for each row of W+ (§7.1).

    Defaults are those for EG3D. On StyleSDF the heads are those of the released model, and `heads` is not looked at.
    """

    input_size: int = 256
    #: Width and number of blocks of each stage of the body.
    stages: tuple[tuple[int, int], ...] = ((64, 3), (128, 4), (256, 14), (512, 3))
    #: Rows of W+ that read the maps of this side when the input has 256 px.
    heads: tuple[StyleHeadConfig, ...] = (StyleHeadConfig(5, 32), StyleHeadConfig(4, 64), StyleHeadConfig(5, 128))


@dataclass(frozen=True)
class HybridEncodersConfig:
    """The released encoders for StyleSDF. Defaults are E3DGE_Full_Runner for FFHQ at 1024 px."""

    field_rows: int = 9  # codes of the field, each from a head of E0
    field_width: int = 256
    decoder_rows: int = 10  # codes of the decoder, all from one head of E0
    decoder_width: int = 512
    #: "none": E0 alone; "aligned": local detail from the realigned residual only; "hybrid": both ways, fused (Eq. 10).
    local: Literal["none", "aligned", "hybrid"] = "hybrid"
    stem_norm: Literal["instance", "batch"] = "instance"  # of E1's stems
    film_head: Literal["residual", "linear"] = "residual"


@dataclass(frozen=True)
class HybridConfig:
    """What turns pictures into codes and local detail on a StyleSDF generator, as E3DGE was released."""

    encoders: HybridEncodersConfig = field(default_factory=HybridEncodersConfig)
    #: Channels at 2, 4, 8, ... px of the volume discriminator, which tells a picture's camera.
    viewpoints: tuple[int, ...] = (400, 400, 400, 400, 256, 128)

    def describe(self) -> str:
        """What it is, for people."""
        local = {
            "none": "E0 alone, no local detail",
            "aligned": "E0, E1, E_ADA: local detail from the realigned residual",
            "hybrid": "E0, E1, E_ADA, fusion: local detail aligned in 3D and 2D",
        }[self.encoders.local]
        return f"E3DGE's for StyleSDF: {local}; camera from the volume discriminator ({1 << len(self.viewpoints)} px)"


@dataclass(frozen=True)
class MatteConfig:
    """Foreground matte: a small U-Net."""

    input_size: int = 128
    widths: tuple[int, ...] = (16, 24, 48, 96, 128)
