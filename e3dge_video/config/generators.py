"""Options of the generators. Defaults are the official EG3D model for FFHQ at 512 px.

The starter model is the same class with smaller numbers. Checks that one value alone or a pair of values can fail are
made here, so that a wrong option is one line instead of a shape error deep inside a network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from e3dge_video.errors import ConfigError

PlaneAxes = Literal["released", "corrected"]
SuperResolutionKind = Literal["8XDC", "8X", "4X", "2X", "none"]
NoiseMode = Literal["const", "none", "random"]


@dataclass(frozen=True)
class MappingConfig:
    """The mapping network (z, camera) → w."""

    layers: int = 2
    lr_multiplier: float = 0.01
    #: "conditioned": w depends on the camera; "zeroed": the network has the input but sees zeros; "none": no input.
    camera: Literal["conditioned", "zeroed", "none"] = "conditioned"
    camera_scale: float = 1.0  # the 25 camera numbers are multiplied by this
    camera_width: int | None = None  # width of the embedded camera; None: w_dim
    hidden_width: int | None = None  # width between the layers; None: w_dim

    def __post_init__(self) -> None:
        _positive("mapping.layers", self.layers)
        _positive("mapping.lr_multiplier", self.lr_multiplier)
        _one_of("mapping.camera", self.camera, ("conditioned", "zeroed", "none"))


@dataclass(frozen=True)
class BackboneConfig:
    """The StyleGAN2 network that draws the three planes."""

    plane_resolution: int = 256  # pixels, a power of two
    plane_channels: int = 32  # of each plane
    channel_base: int = 32768  # width at resolution r is channel_base / r ...
    channel_max: int = 512  # ... but at most this
    channels: tuple[int, ...] | None = None  # explicit widths for 4, 8, ... plane_resolution; None: from the two above
    use_noise: bool = True  # layers own a fixed noise image and its strength
    clamp: float | None = None  # activations are limited to ±clamp

    def __post_init__(self) -> None:
        size = self.plane_resolution
        if size < 4 or size & (size - 1):
            raise ConfigError(f"backbone.plane_resolution must be a power of two of at least 4, got {size}")
        _positive("backbone.plane_channels", self.plane_channels)
        if self.channels is None:
            _positive("backbone.channel_base / plane_resolution", self.channel_base // size)
            _positive("backbone.channel_max", self.channel_max)
            return
        object.__setattr__(self, "channels", tuple(self.channels))
        levels = int(math.log2(size)) - 1
        if len(self.channels) != levels or min(self.channels) < 1:
            raise ConfigError(
                f"backbone.channels must give {levels} positive widths (for 4 to {size} px), got {self.channels}"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Feature channels at 4, 8, ... plane_resolution."""
        if self.channels is not None:
            return self.channels
        levels = range(2, int(math.log2(self.plane_resolution)) + 1)
        return tuple(min(self.channel_base // 2**level, self.channel_max) for level in levels)


@dataclass(frozen=True)
class DecoderConfig:
    """The small network that turns plane features at a point into density and features."""

    hidden: int = 64
    features: int = 32  # the first three are red, green, blue
    lr_multiplier: float = 1.0

    def __post_init__(self) -> None:
        _positive("decoder.hidden", self.hidden)
        if self.features < 3:
            raise ConfigError(
                f"decoder.features must be at least 3 (the first three are the colour), got {self.features}"
            )


@dataclass(frozen=True)
class VolumeConfig:
    """The box that the planes span, and what lies behind it."""

    box_warp: float = 1.0  # side of the box around the world origin, world units
    #: "released": planes read (x, y), (x, z), (z, x), as in all released weights; "corrected": the last one (z, y).
    plane_axes: PlaneAxes = "released"
    white_back: bool = False  # white background instead of black

    def __post_init__(self) -> None:
        _positive("volume.box_warp", self.box_warp)
        _one_of("volume.plane_axes", self.plane_axes, ("released", "corrected"))


@dataclass(frozen=True)
class RaySamplingConfig:
    """How many points are placed along each ray, and where."""

    coarse: int = 48
    fine: int = 48  # importance samples; 0 disables the second pass
    near_far: tuple[float, float] | Literal["auto"] = (
        2.25,
        3.3,
    )  # world units along the ray; "auto": where it meets the box
    disparity: bool = False  # coarse samples evenly spaced in 1 / depth
    #: Samples of each ray, the heaviest, that local detail acts on; the others weigh next to nothing on a head.
    detail: int = 24

    def __post_init__(self) -> None:
        if self.coarse < 4:
            raise ConfigError(f"rays.coarse must be at least 4, got {self.coarse}")
        _positive("rays.detail", self.detail)
        if self.fine < 0:
            raise ConfigError(f"rays.fine must be 0 or more, got {self.fine}")
        if self.near_far == "auto":
            if self.disparity:
                raise ConfigError(
                    'rays.disparity needs fixed bounds; give rays.near_far as two numbers instead of "auto"'
                )
            return
        try:
            near, far = (float(bound) for bound in self.near_far)
        except (TypeError, ValueError):
            raise ConfigError(f'rays.near_far must be two numbers or "auto", got {self.near_far!r}') from None
        if not 0 < near < far:
            raise ConfigError(f"rays.near_far must satisfy 0 < near < far, got {near} and {far}")
        object.__setattr__(self, "near_far", (near, far))


@dataclass(frozen=True)
class SuperResolutionConfig:
    """The 2D network from rendered features to the final image: two blocks, the second doubles the size.

    | kind | input px | first block doubles | widths | input of another size |
    |---|---|---|---|---|
    | 8XDC | 128 | yes | 256, 128 | resized |
    | 8X | 128 | yes | 128, 64 | resized |
    | 4X | 128 | no | 128, 64 | enlarged; larger is an error |
    | 2X | 64 | no | 128, 64 | resized |
    """

    kind: SuperResolutionKind = "8XDC"
    input_resolution: int | None = None  # None: as in the table
    channels: tuple[int, int] | None = None  # None: as in the table
    clamp: float | None = 256.0  # activations are limited to ±clamp
    antialias: bool = True  # when the input is resized
    noise: NoiseMode = "none"  # "none": the layers own no noise at all

    def __post_init__(self) -> None:
        _one_of("superresolution.kind", self.kind, ("8XDC", "8X", "4X", "2X", "none"))
        _one_of("superresolution.noise", self.noise, ("const", "none", "random"))
        if self.input_resolution is not None:
            _positive("superresolution.input_resolution", self.input_resolution)
        if self.channels is not None:
            object.__setattr__(self, "channels", tuple(self.channels))
            if len(self.channels) != 2 or min(self.channels) < 1:
                raise ConfigError(f"superresolution.channels must give two positive widths, got {self.channels}")

    @property
    def input_size(self) -> int:
        """Pixels of the square feature image that the first block takes."""
        return self.input_resolution or (64 if self.kind == "2X" else 128)

    @property
    def widths(self) -> tuple[int, int]:
        """Feature channels of the two blocks."""
        return self.channels or ((256, 128) if self.kind == "8XDC" else (128, 64))

    @property
    def first_block_doubles(self) -> bool:
        """Whether the first block, too, doubles the size."""
        return self.kind in ("8XDC", "8X")


@dataclass(frozen=True)
class CameraConfig:
    """The cameras a generator was trained with. World units; focal length divided by the image size."""

    pivot: tuple[float, float, float] = (0.0, 0.0, 0.2)  # point looked at
    radius: float = 2.7  # distance from the world origin
    focal: float = 2985.29 / 700.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "pivot", tuple(float(value) for value in self.pivot))
        if len(self.pivot) != 3:
            raise ConfigError(f"camera.pivot must be three numbers, got {self.pivot}")
        _positive("camera.radius", self.radius)
        _positive("camera.focal", self.focal)


@dataclass(frozen=True)
class CodePart:
    """Rows of W+ with one space W: for codes of z they are all the same, and a boundary is found in each part alone.

    Attributes:
        prefix: What the names of its boundaries begin with.
        first: First row.
        stop: Row after the last.
        width: Numbers of a row that are used.
    """

    prefix: str
    first: int
    stop: int
    width: int


@dataclass(frozen=True)
class EG3DConfig:
    """An EG3D generator, whole."""

    z_dim: int = 512
    w_dim: int = 512
    resolution: int = 128  # pixels of the volume-rendered image, unless another is asked for
    mapping: MappingConfig = field(default_factory=MappingConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    volume: VolumeConfig = field(default_factory=VolumeConfig)
    rays: RaySamplingConfig = field(default_factory=RaySamplingConfig)
    superresolution: SuperResolutionConfig = field(default_factory=SuperResolutionConfig)
    camera: CameraConfig = field(default_factory=CameraConfig)

    def __post_init__(self) -> None:
        _positive("z_dim", self.z_dim)
        _positive("w_dim", self.w_dim)
        _positive("resolution", self.resolution)
        sr = self.superresolution
        if sr.kind == "4X" and self.resolution > sr.input_size:
            raise ConfigError(
                f"superresolution.kind 4X takes at most {sr.input_size} px, but resolution is {self.resolution}; "
                "lower resolution or choose another kind"
            )

    @property
    def camera_dim(self) -> int:
        """Camera numbers that the mapping network takes."""
        return 0 if self.mapping.camera == "none" else 25

    @property
    def latent_rows(self) -> int:
        """Rows L of a W+ code: one for each 3×3 convolution of the backbone, one for its last RGB layer."""
        return 2 * (int(math.log2(self.backbone.plane_resolution)) - 1)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(L, W) of a W+ code."""
        return self.latent_rows, self.w_dim

    @property
    def code_parts(self) -> tuple[CodePart, ...]:
        """The only one: all rows."""
        return (CodePart("", 0, *self.latent_shape),)

    @property
    def image_resolution(self) -> int:
        """Pixels of the final image."""
        sr = self.superresolution
        if sr.kind == "none":
            return self.resolution
        return sr.input_size * (4 if sr.first_block_doubles else 2)

    def describe(self) -> dict[str, str]:
        """What it is, for people: short titles and texts."""
        backbone, rays, upsampling = self.backbone, self.rays, self.superresolution
        bounds = "where they meet the box" if rays.near_far == "auto" else "{:g} … {:g}".format(*rays.near_far)
        return {
            "planes": f"3 × {backbone.plane_channels} × {backbone.plane_resolution}²",
            "codes": f"z {self.z_dim}, W+ {self.latent_rows} × {self.w_dim}, camera {self.mapping.camera}",
            "rays": f"{rays.coarse} + {rays.fine} samples, {bounds}, box {self.volume.box_warp:g}, axes as "
            f"{self.volume.plane_axes}",
            "upsampling": f"{upsampling.kind}, noise {upsampling.noise}",
        }


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{name} must be positive, got {value}")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
