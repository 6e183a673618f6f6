"""One made-up official model of each generator, with boundaries for it: what tests of both go through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from e3dge_video.config.backbones import GeneratorConfig
from e3dge_video.weights.convert_eg3d import eg3d_config, eg3d_to_native
from e3dge_video.weights.convert_stylesdf import stylesdf_config, stylesdf_to_native
from tests.support import eg3d_checkpoint, stylesdf_checkpoint


@dataclass(frozen=True)
class OfficialModel:
    """A project's checkpoint in the making.

    Attributes:
        backbone: What bundles call the generator.
        project: What imports call it.
        file: Name of the checkpoint.
        state: Its tensors, under the official names.
        pack: File, tensors → the file written.
        native: Tensors → our options and tensors.
        lost: A tensor that tells no size, official name and ours.
        boundaries: Folder → boundary of the edit `smiling`.
        rows: The same edit in the rows of W+, first and last.
        limits: Its range.
        info: What `models info` says of the generator.
    """

    backbone: str
    project: str
    file: str
    state: Callable[[], dict[str, Tensor]]
    pack: Callable[[Path, Mapping[str, Tensor]], object]
    native: Callable[[Mapping[str, Tensor]], tuple[GeneratorConfig, dict[str, Tensor]]]
    lost: tuple[str, str]
    boundaries: Mapping[str, list[float]]
    rows: tuple[list[float], list[float]]
    limits: tuple[float, float]
    info: tuple[str, ...]

    def write(self, folder: Path, state: Mapping[str, Tensor] | None = None) -> Path:
        """The checkpoint with these tensors, its own by default."""
        folder.mkdir(parents=True, exist_ok=True)
        self.pack(folder / self.file, self.state() if state is None else state)
        return folder / self.file

    def write_boundaries(self, folder: Path) -> Path:
        """The folder of boundaries."""
        for name, values in self.boundaries.items():
            (folder / name).mkdir(parents=True)
            np.save(folder / name / "boundary.npy", np.asarray([values], np.float32))
        return folder


def _eg3d_native(state: Mapping[str, Tensor]) -> tuple[GeneratorConfig, dict[str, Tensor]]:
    config = eg3d_config(eg3d_checkpoint.INIT, resolution=16)
    return config, eg3d_to_native(state, config)


def _stylesdf_native(state: Mapping[str, Tensor]) -> tuple[GeneratorConfig, dict[str, Tensor]]:
    config = stylesdf_config(state)
    return config, stylesdf_to_native(state, config)


def _write_pickle(path: Path, state: Mapping[str, Tensor]) -> Any:
    return path.write_bytes(eg3d_checkpoint.official_file(dict(state)))


def _axis(width: int, index: int) -> list[float]:
    return [float(number == index) for number in range(width)]


EG3D_MODEL = OfficialModel(
    backbone="eg3d",
    project="EG3D",
    file="heads.pkl",
    state=eg3d_checkpoint.foreign_state,
    pack=_write_pickle,
    native=_eg3d_native,
    lost=("decoder.net.0.bias", "decoder.hidden.bias"),
    boundaries={"Smiling": _axis(6, 0)},
    rows=(_axis(6, 0), _axis(6, 0)),
    limits=(-3.0, 3.0),
    info=(
        "eg3d, pictures 128 px, volume rendering 16 px, crop eg3d",
        "3 × 32 × 256²",
        "z 8, W+ 14 × 6, camera conditioned",
        "6 + 5 samples, 2.25 … 3.3, box 1, axes as released",
        "2X, noise none",
        "as its publisher says; the official EG3D weights: NVIDIA",
        "the super-resolution never adds noise",
        "superresolution.block0.conv0.noise_const",
        "smiling        -3 … 3",
    ),
)
STYLESDF_MODEL = OfficialModel(
    backbone="stylesdf",
    project="StyleSDF",
    file="heads.pt",
    state=stylesdf_checkpoint.foreign_state,
    pack=stylesdf_checkpoint.official_file,
    native=_stylesdf_native,
    lost=("renderer.network.rgb_linear.bias", "renderer.siren.to_rgb.bias"),
    boundaries={"renderer_Smiling": _axis(6, 1), "decoder_Smiling": _axis(7, 6)},
    rows=(_axis(7, 1), _axis(7, 6)),
    limits=(-1.4, 1.5),
    info=(
        "stylesdf, pictures 32 px, volume rendering 8 px, crop ffhq",
        "sdf, 2 + 1 FiLM-SIREN layers of 6",
        "z 6, W+ 3 × 6 (field), 6 × 7 (decoder)",
        "24 samples (offset), within 0.12 of the head's centre",
        "StyleGAN2 decoder, 5 4 3 channels",
        "gaussian, 0.3 and 0.15 rad to the side and up, half field of view 6°",
        "as its publisher says; the official StyleSDF weights: CC BY-NC-SA 4.0",
        "the image discriminator, which only training needs; --discriminator keeps it",
        "smiling        -1.4 … 1.5   1 = more smile",
    ),
)
OFFICIAL_MODELS = {model.backbone: model for model in (EG3D_MODEL, STYLESDF_MODEL)}
