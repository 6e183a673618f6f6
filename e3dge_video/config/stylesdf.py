"""Options of the StyleSDF generator. Defaults are the released model for FFHQ at 1024 px."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from e3dge_video.config.generators import CodePart
from e3dge_video.errors import ConfigError


@dataclass(frozen=True)
class SirenConfig:
    """The implicit field and the mapping of its codes."""

    width: int = 256  # of layers, features, codes and z
    depth: int = 8  # layers in front of the distance; the colour layer comes behind
    mapping_layers: int = 3

    def __post_init__(self) -> None:
        for name in ("width", "depth", "mapping_layers"):
            _positive(f"siren.{name}", getattr(self, name))


@dataclass(frozen=True)
class SurfaceVolumeConfig:
    """Where along its rays the field is looked at, and how it is integrated. World units: the camera stands at 1."""

    half_depth: float = 0.12  # samples lie within this of the plane through the world origin
    samples: int = 24  # of each ray
    #: "offset": near ends of equal strata, one jitter for all samples of a ray; "stratified": one for each sample.
    sampling: Literal["offset", "stratified"] = "offset"
    #: "sdf": the field is a signed distance; "density": its softplus is the density, as in NeRF.
    mode: Literal["sdf", "density"] = "sdf"
    density_noise: float = 0.0  # standard deviation of noise on the raw density while training; mode "density" only
    normalize: bool = True  # the network sees points divided by half_depth
    static_directions: bool = True  # the colour sees the pixel's direction in camera axes instead of world axes
    force_background: bool = True  # the last sample of a ray gets what is left of the light

    def __post_init__(self) -> None:
        if not 0 < self.half_depth < 1:
            raise ConfigError(f"volume.half_depth must lie between 0 and 1, got {self.half_depth}")
        if self.samples < 2:
            raise ConfigError(f"volume.samples must be at least 2, got {self.samples}")
        if self.sampling not in ("offset", "stratified"):
            raise ConfigError(f"volume.sampling must be one of offset, stratified; got {self.sampling!r}")
        if self.mode not in ("sdf", "density"):
            raise ConfigError(f"volume.mode must be one of sdf, density; got {self.mode!r}")
        if self.density_noise < 0 or (self.density_noise > 0 and self.mode == "sdf"):
            raise ConfigError(
                f"volume.density_noise must be 0, or positive with volume.mode density; "
                f"got {self.density_noise} with mode {self.mode}"
            )


@dataclass(frozen=True)
class StyleDecoderConfig:
    """The StyleGAN2 network from rendered features to the final image, and the mapping of its codes."""

    w_dim: int = 512
    channels: tuple[int, ...] = (512, 256, 128, 64, 32)  # at the rendering's size, at twice that, ...
    mapping_layers: int = 5
    lr_multiplier: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        _positive("decoder.w_dim", self.w_dim)
        _positive("decoder.mapping_layers", self.mapping_layers)
        _positive("decoder.lr_multiplier", self.lr_multiplier)
        if not self.channels or min(self.channels) < 1:
            raise ConfigError(f"decoder.channels must be positive widths, got {self.channels}")


@dataclass(frozen=True)
class ViewpointConfig:
    """The cameras a model was trained with: azimuth and elevation around the frontal view, radians."""

    spread: tuple[float, float] = (0.3, 0.15)  # standard deviations or half widths
    distribution: Literal["gaussian", "uniform"] = "gaussian"
    half_fov_deg: float = 6.0  # half the field of view, degrees as StyleSDF gives it

    def __post_init__(self) -> None:
        object.__setattr__(self, "spread", tuple(float(value) for value in self.spread))
        if len(self.spread) != 2 or min(self.spread) < 0:
            raise ConfigError(f"viewpoint.spread must be two numbers of at least 0, got {self.spread}")
        if self.distribution not in ("gaussian", "uniform"):
            raise ConfigError(f"viewpoint.distribution must be one of gaussian, uniform; got {self.distribution!r}")
        if not 0 < self.half_fov_deg < 90:
            raise ConfigError(f"viewpoint.half_fov_deg must lie between 0 and 90, got {self.half_fov_deg}")


@dataclass(frozen=True)
class StyleSDFConfig:
    """A StyleSDF generator, whole."""

    resolution: int = 64  # pixels of the volume-rendered image that the decoder takes
    siren: SirenConfig = field(default_factory=SirenConfig)
    volume: SurfaceVolumeConfig = field(default_factory=SurfaceVolumeConfig)
    decoder: StyleDecoderConfig | None = field(default_factory=StyleDecoderConfig)  # None: the renderer is all there is
    viewpoint: ViewpointConfig = field(default_factory=ViewpointConfig)

    def __post_init__(self) -> None:
        _positive("resolution", self.resolution)

    @property
    def field_rows(self) -> int:
        """Rows of a W+ code that steer the field: one for each of its layers, the colour layer's last."""
        return self.siren.depth + 1

    @property
    def decoder_rows(self) -> int:
        """Rows of a W+ code that steer the decoder: one for each 3×3 convolution, one for its last RGB layer."""
        return 0 if self.decoder is None else 2 * len(self.decoder.channels)

    @property
    def z_dim(self) -> int:
        """Numbers Z of a random input: as many as a code of the field has."""
        return self.siren.width

    @property
    def latent_width(self) -> int:
        """Width of a W+ code: the larger of the field's and the decoder's."""
        return self.siren.width if self.decoder is None else max(self.siren.width, self.decoder.w_dim)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(L, W) of a W+ code."""
        return self.field_rows + self.decoder_rows, self.latent_width

    @property
    def code_parts(self) -> tuple[CodePart, ...]:
        """The field's rows and, if there is one, the decoder's, whose code is mapped from the field's."""
        parts = (CodePart("renderer_", 0, self.field_rows, self.siren.width),)
        if self.decoder is None:
            return parts
        return (*parts, CodePart("decoder_", self.field_rows, self.latent_shape[0], self.decoder.w_dim))

    @property
    def image_resolution(self) -> int:
        """Pixels of the final image."""
        return self.resolution if self.decoder is None else self.resolution << (len(self.decoder.channels) - 1)

    def describe(self) -> dict[str, str]:
        """What it is, for people: short titles and texts."""
        siren, volume, decoder, viewpoint = self.siren, self.volume, self.decoder, self.viewpoint
        codes = f"z {self.z_dim}, W+ {self.field_rows} × {siren.width} (field)"
        upsampling = "none: the volume renderer alone"
        if decoder is not None:
            codes += f", {self.decoder_rows} × {decoder.w_dim} (decoder)"
            upsampling = f"StyleGAN2 decoder, {' '.join(map(str, decoder.channels))} channels"
        spread = " and ".join(f"{angle:g}" for angle in viewpoint.spread)
        return {
            "field": f"{volume.mode}, {siren.depth} + 1 FiLM-SIREN layers of {siren.width}",
            "codes": codes,
            "rays": f"{volume.samples} samples ({volume.sampling}), within {volume.half_depth:g} of the head's centre",
            "upsampling": upsampling,
            "viewpoints": f"{viewpoint.distribution}, {spread} rad to the side and up, half field of view "
            f"{viewpoint.half_fov_deg:g}°",
        }


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{name} must be positive, got {value}")


#: The released models.
FFHQ_1024 = StyleSDFConfig()
AFHQ_512 = StyleSDFConfig(
    decoder=StyleDecoderConfig(channels=(512, 256, 128, 64)), viewpoint=ViewpointConfig(spread=(0.15, 0.15))
)
