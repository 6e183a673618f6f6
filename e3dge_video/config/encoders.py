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
class LocalBranchConfig:
    """E1, E_ADA, fusion and FiLM head (§4.2, §4.3). Defaults are the released sizes, for pictures of 256 px."""

    #: Where local features come from: "projected": E1 on the reference view's residual, read by projecting points into
    #: that view (3D); "aligned": E1 on the residual that E_ADA realigned to the target view (2D); "hybrid": both, fused
    #: (Eq. 10); "unaligned": E1 on the reference view's residual, read where a point appears in the target view, as if
    #: nothing had moved: what the paper's ablation begins with.
    mode: Literal["unaligned", "projected", "aligned", "hybrid"] = "hybrid"
    stem_norm: Literal["instance", "batch"] = "instance"
    stem_width: int = 32  # of each of E1's two stems
    base_width: int = 64  # of the hourglass filter's first convolution
    channels: int = 256  # of F_L
    stacks: int = 4  # hourglasses
    depth: int = 2  # of each hourglass
    #: Let the residual itself follow E1's channels, reduced to the map's size: the FiLM head then sees from its first
    #: step on what is missing at a point, and learns in hours of a CPU what takes days without.
    residual_skip: bool = False
    aligner_widths: tuple[int, ...] = (16, 32, 48, 64)  # E_ADA's, from full size down
    #: "residual": one residual MLP; "deep": two of them; "linear": one linear layer.
    film_head: Literal["residual", "deep", "linear"] = "residual"
    film_width: int = 128  # channels between the two of "deep"
    #: World coordinates are multiplied by this before their positional encoding; EG3D's box becomes [-1, 1]³ so.
    coordinate_scale: float = 1.0
    #: Bounds of FiLM's γ and β (the latter in units of f_G), reached smoothly; 0: none, as released. A residual larger
    #: than those of training cannot carry f_G out of the range that super-resolution knows.
    scale_limit: float = 0.0
    shift_limit: float = 0.0
    #: Which points of the target view count as seen in the reference view: all that project inside it, or those of them
    #: that no other part of the head hides there (depth test).
    visibility: Literal["in_image", "depth"] = "in_image"
    #: What E_ADA realigns of the residual of edited codes: all of it, as released; or the places that the edit changes.
    #: A frame's own residual is sharper than a realigned one wherever it still fits.
    realign: Literal["all", "changed"] = "all"

    @property
    def feature_channels(self) -> int:
        """Channels of the local features."""
        return self.channels + 3 * self.residual_skip


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
    #: Width and number of blocks of each stage of E0's body.
    stages: tuple[tuple[int, int], ...] = ((64, 3), (128, 4), (256, 14), (512, 3))

    def branch(self) -> LocalBranchConfig | None:
        """Sizes of the local branch, if there is one."""
        if self.local == "none":
            return None
        return LocalBranchConfig(self.local, stem_norm=self.stem_norm, film_head=self.film_head)


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
