"""A head data set as the training stages see it: single views with everything that is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from e3dge_video.errors import ConfigError
from e3dge_video.geometry.cameras import Camera
from e3dge_video.heads.dataset import HeadDataset

#: Small features that decide expression and likeness; they fill few pixels, so training looks at them more often.
DETAIL = ("eye", "mouth", "lips", "teeth", "brow", "glasses", "lashes")
#: Regions whose colour may be exchanged when an encoder's input is disturbed.
RECOLORED = ("hair", "clothing")


@dataclass(frozen=True)
class HeadView:
    """One rendered view.

    Attributes:
        rgba: Straight colour and alpha. [S, S, 4] uint8
        depth: Ray length in world units, 0 where there is nothing. [S, S] float16
        label: Region. [S, S] uint8
        camera: EG3D label. [25]
    """

    rgba: NDArray[np.uint8]
    depth: NDArray[np.float16]
    label: NDArray[np.uint8]
    camera: NDArray[np.float32]


class HeadViews:
    """Random access to the views of a data set; pixels stay on disk until they are used.

    Args:
        folder: Written by `train heads` with depth and labels.
        held_out: Number of last rows that training must not see.
    """

    def __init__(self, folder: Path, held_out: int) -> None:
        self._data = HeadDataset(folder)
        for name in ("depth", "label"):
            if name not in self._data.meta["config"]["maps"]:
                raise ConfigError(f"{folder}: the data set has no {name} map; render it with --maps depth,label")
        self.z = self._data.small("z")
        self.cameras = self._data.small("cameras")
        self.landmarks = self._data.small("landmarks")
        self.attributes = self._data.small("attributes")
        self.attribute_names = self._data.attribute_names
        self.edits = self._data.small("edit")
        if not 0 < held_out < len(self):
            raise ConfigError(f"{folder}: {held_out} of {len(self)} heads cannot be held out")
        # A pair of a head and its edit stays on one side.
        self.train_count = len(self) - held_out
        while self.edits[self.train_count] >= 0:
            self.train_count -= 1
        names = list(self._data.meta["labels"])
        self.detail_labels = tuple(names.index(name) for name in DETAIL)
        self.skin_label = names.index("skin")
        self.recolored_labels = tuple(names.index(name) for name in RECOLORED)

    def __len__(self) -> int:
        return len(self._data)

    @property
    def held_out(self) -> range:
        """Rows that training must not see."""
        return range(self.train_count, len(self))

    @property
    def views(self) -> int:
        """Views of each head."""
        return int(self.cameras.shape[1])

    @property
    def size(self) -> int:
        """Side of the pictures, pixels."""
        return int(self._data.meta["config"]["size"])

    def relief(self, view: HeadView, *, reach: float = 5.0, full: float = 13.0) -> NDArray[np.float32]:
        """How much each pixel of the skin stands out from the skin around it: wrinkles, folds, moles.

        Args:
            view: A view of this data set.
            reach: Standard deviation of what counts as around, pixels.
            full: Difference of brightness that counts fully, of 255.

        Returns:
            0..1, 0 elsewhere than on skin. [S, S]
        """
        skin = ((view.label == self.skin_label) & (view.rgba[..., 3] > 250)).astype(np.float32)
        brightness = view.rgba[..., :3].mean(axis=2, dtype=np.float32)
        around = cv2.GaussianBlur(brightness * skin, (0, 0), reach) / (cv2.GaussianBlur(skin, (0, 0), reach) + 1e-3)
        return (skin * np.minimum(np.abs(brightness - around) / full, 1)).astype(np.float32)

    @property
    def z_dim(self) -> int:
        """Numbers in a latent code."""
        return int(self.z.shape[1])

    def view(self, row: int, view: int) -> HeadView:
        """One view of one head."""
        rgba, depth, label = (self._data.array(name, row)[view] for name in ("rgba", "depth", "label"))
        return HeadView(rgba, depth, label, self.cameras[row, view])

    def camera(self, row: int, view: int) -> Camera:
        """Camera of one view, a batch of one."""
        return Camera.from_eg3d(torch.from_numpy(self.cameras[row, view])[None])


def pixel_rays(camera: NDArray[np.float32], pixels: NDArray[np.int64], size: int) -> tuple[NDArray[np.float32], ...]:
    """Origin [3] and unit directions [N, 3] of some pixels of a square image; `camera` is an EG3D label."""
    label = Camera.from_eg3d(torch.from_numpy(camera)[None])
    row, column = np.divmod(pixels, size)
    uv = np.stack([(column + 0.5) / size, (row + 0.5) / size, np.ones(len(pixels))], axis=1)
    local = uv @ np.linalg.inv(label.intrinsics[0].numpy()).T
    world = local @ label.cam2world[0, :3, :3].numpy().T
    return label.position[0].numpy(), (world / np.linalg.norm(world, axis=1, keepdims=True)).astype(np.float32)
