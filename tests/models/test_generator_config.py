"""Options of the generators: derived numbers, and one clear line for what cannot be."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from e3dge_video.config.generators import (
    BackboneConfig,
    CameraConfig,
    DecoderConfig,
    EG3DConfig,
    MappingConfig,
    RaySamplingConfig,
    SuperResolutionConfig,
    VolumeConfig,
)
from e3dge_video.config.load import from_mapping, to_mapping
from e3dge_video.config.stylesdf import (
    AFHQ_512,
    FFHQ_1024,
    SirenConfig,
    StyleDecoderConfig,
    StyleSDFConfig,
    SurfaceVolumeConfig,
    ViewpointConfig,
)
from e3dge_video.errors import ConfigError


def test_defaults_are_official_ffhq_512() -> None:
    config = EG3DConfig()
    assert (config.z_dim, config.w_dim, config.latent_rows, config.image_resolution) == (512, 512, 14, 512)
    assert config.backbone.widths == (512, 512, 512, 512, 512, 256, 128)
    assert config.camera.focal == pytest.approx(4.2647, abs=1e-4)
    assert config.camera_dim == 25
    assert (config.superresolution.input_size, config.superresolution.widths) == (128, (256, 128))


@pytest.mark.parametrize(
    ("kind", "size", "image"), [("8XDC", 128, 512), ("8X", 128, 512), ("4X", 128, 256), ("2X", 64, 128)]
)
def test_super_resolution_sizes(kind: Any, size: int, image: int) -> None:
    config = EG3DConfig(resolution=64, superresolution=SuperResolutionConfig(kind=kind))
    assert (config.superresolution.input_size, config.image_resolution) == (size, image)


def test_small_numbers() -> None:
    config = EG3DConfig(
        resolution=96,
        mapping=MappingConfig(camera="none"),
        backbone=BackboneConfig(plane_resolution=16, channels=[8, 8, 4]),
        superresolution=SuperResolutionConfig(kind="none"),
    )
    assert config.backbone.widths == (8, 8, 4)
    assert (config.latent_rows, config.camera_dim, config.image_resolution) == (6, 0, 96)
    assert hash(config) == hash(dataclasses.replace(config))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MappingConfig(layers=0), "mapping.layers must be positive, got 0"),
        (lambda: MappingConfig(camera="maybe"), "mapping.camera must be one of conditioned, zeroed, none; got 'maybe'"),
        (lambda: BackboneConfig(plane_resolution=96), "plane_resolution must be a power of two of at least 4, got 96"),
        (lambda: BackboneConfig(plane_resolution=16, channels=(8, 8)), r"must give 3 positive widths .* got \(8, 8\)"),
        (lambda: BackboneConfig(channel_base=128), "channel_base / plane_resolution must be positive"),
        (lambda: DecoderConfig(features=2), "decoder.features must be at least 3"),
        (lambda: VolumeConfig(box_warp=0), "volume.box_warp must be positive, got 0"),
        (lambda: VolumeConfig(plane_axes="yz"), "volume.plane_axes must be one of released, corrected"),
        (lambda: RaySamplingConfig(coarse=2), "rays.coarse must be at least 4, got 2"),
        (lambda: RaySamplingConfig(fine=-1), "rays.fine must be 0 or more, got -1"),
        (lambda: RaySamplingConfig(near_far=(3.0, 2.0)), "0 < near < far, got 3.0 and 2.0"),
        (lambda: RaySamplingConfig(near_far="Auto"), "rays.near_far must be two numbers or \"auto\", got 'Auto'"),
        (lambda: RaySamplingConfig(near_far="auto", disparity=True), "rays.disparity needs fixed bounds"),
        (lambda: SuperResolutionConfig(kind="16X"), "superresolution.kind must be one of 8XDC, 8X, 4X, 2X, none"),
        (lambda: SuperResolutionConfig(channels=(8,)), "superresolution.channels must give two positive widths"),
        (lambda: SuperResolutionConfig(noise="some"), "superresolution.noise must be one of"),
        (lambda: CameraConfig(pivot=(0, 0)), "camera.pivot must be three numbers"),
        (lambda: EG3DConfig(z_dim=0), "z_dim must be positive, got 0"),
        (
            lambda: EG3DConfig(resolution=160, superresolution=SuperResolutionConfig(kind="4X")),
            "4X takes at most 128 px, but resolution is 160",
        ),
    ],
)
def test_impossible_options_are_one_line(build: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_stylesdf_presets() -> None:
    assert StyleSDFConfig() == FFHQ_1024
    assert (FFHQ_1024.field_rows, FFHQ_1024.decoder_rows, FFHQ_1024.image_resolution) == (9, 10, 1024)
    assert (AFHQ_512.field_rows, AFHQ_512.decoder_rows, AFHQ_512.image_resolution) == (9, 8, 512)
    assert AFHQ_512.latent_width == FFHQ_1024.latent_width == 512
    assert (FFHQ_1024.viewpoint.spread, AFHQ_512.viewpoint.spread) == ((0.3, 0.15), (0.15, 0.15))
    alone = StyleSDFConfig(decoder=None)
    assert (alone.decoder_rows, alone.image_resolution, alone.latent_width) == (0, 64, 256)


def test_stylesdf_config_survives_plain_values() -> None:
    for config in (AFHQ_512, StyleSDFConfig(decoder=None)):
        assert from_mapping(StyleSDFConfig, to_mapping(config)) == config


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SirenConfig(depth=0), "siren.depth must be positive, got 0"),
        (lambda: SurfaceVolumeConfig(half_depth=1.5), "volume.half_depth must lie between 0 and 1, got 1.5"),
        (lambda: SurfaceVolumeConfig(samples=1), "volume.samples must be at least 2, got 1"),
        (lambda: SurfaceVolumeConfig(sampling="even"), "volume.sampling must be one of offset, stratified; got 'even'"),
        (lambda: SurfaceVolumeConfig(mode="nerf"), "volume.mode must be one of sdf, density; got 'nerf'"),
        (
            lambda: SurfaceVolumeConfig(density_noise=1.0),
            "density_noise must be 0, or positive with volume.mode density",
        ),
        (lambda: StyleDecoderConfig(channels=()), r"decoder.channels must be positive widths, got \(\)"),
        (lambda: ViewpointConfig(spread=(0.1, -0.1)), "viewpoint.spread must be two numbers of at least 0"),
        (lambda: ViewpointConfig(distribution="even"), "viewpoint.distribution must be one of gaussian, uniform"),
        (lambda: ViewpointConfig(half_fov_deg=90.0), "viewpoint.half_fov_deg must lie between 0 and 90, got 90"),
        (lambda: StyleSDFConfig(resolution=0), "resolution must be positive, got 0"),
    ],
)
def test_stylesdf_options_that_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
