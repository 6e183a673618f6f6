"""Cameras, and the one coordinate convention of this library.

World: y up, the face looks along +z, x to the image's right of a frontal view, units of the generator (the head of an
EG3D face model is about 0.6 high and its pivot stands at (0, 0, 0.2)).
Camera axes: OpenCV (x right, y down, z forward). Intrinsics are divided by the image size, so that one matrix serves
every resolution. Foreign conventions (EG3D's 25 numbers, StyleSDF's angles) are converted here and nowhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from e3dge_video.geometry.precision import full_precision

#: Focal length of EG3D's face models divided by the image size (2985.29 px of a 700 px crop).
EG3D_FOCAL = 2985.29 / 700.0
#: Distance of our cameras from the pivot, world units. (EG3D's own are as far from the world origin: `eg3d_orbit`.)
EG3D_RADIUS = 2.7
#: Point that EG3D's face cameras look at.
EG3D_PIVOT = (0.0, 0.0, 0.2)
#: Distance of StyleSDF's cameras from the world origin, which they look at.
STYLESDF_RADIUS = 1.0
#: Half the field of view of StyleSDF's released models, radians.
STYLESDF_HALF_FOV = math.radians(6)


@dataclass(frozen=True)
class Camera:
    """A batch of pinhole cameras.

    Attributes:
        cam2world: Camera-to-world matrices, OpenCV axes. [B, 4, 4]
        intrinsics: Intrinsics divided by the image size. [B, 3, 3]
    """

    cam2world: Tensor
    intrinsics: Tensor

    def __post_init__(self) -> None:
        if self.cam2world.shape[-2:] != (4, 4) or self.intrinsics.shape[-2:] != (3, 3):
            raise ValueError(
                f"Camera wants cam2world [B, 4, 4] and intrinsics [B, 3, 3]; "
                f"got {tuple(self.cam2world.shape)} and {tuple(self.intrinsics.shape)}"
            )

    def __len__(self) -> int:
        return self.cam2world.shape[0]

    def __getitem__(self, index: slice | Tensor) -> Camera:
        return Camera(self.cam2world[index], self.intrinsics[index])

    @property
    def position(self) -> Tensor:
        """Camera centres in world coordinates. [B, 3]"""
        return self.cam2world[:, :3, 3]

    @property
    @full_precision
    def world2cam(self) -> Tensor:
        """Inverse of `cam2world`, by transposing the rotation. [B, 4, 4]"""
        rotation = self.cam2world[:, :3, :3].transpose(1, 2)
        inverse = torch.zeros_like(self.cam2world)
        inverse[:, :3, :3] = rotation
        inverse[:, :3, 3] = -(rotation @ self.cam2world[:, :3, 3:])[:, :, 0]
        inverse[:, 3, 3] = 1
        return inverse

    def to(self, target: torch.device | torch.dtype | str) -> Camera:
        """The same cameras on another device or in another precision."""
        return Camera(self.cam2world.to(target), self.intrinsics.to(target))

    @staticmethod
    def from_eg3d(label: Tensor) -> Camera:
        """Read EG3D's label: 16 numbers of cam2world, then 9 of the intrinsics, both row-major. [B, 25]"""
        if label.shape[-1] != 25:
            raise ValueError(f"an EG3D camera label has 25 numbers, got {label.shape[-1]}")
        return Camera(label[:, :16].reshape(-1, 4, 4), label[:, 16:].reshape(-1, 3, 3))

    def to_eg3d(self) -> Tensor:
        """EG3D's label of these cameras. [B, 25]"""
        return torch.cat([self.cam2world.flatten(1), self.intrinsics.flatten(1)], dim=1)

    @staticmethod
    def from_stylesdf(viewpoint: Tensor, half_fov: Tensor | float = STYLESDF_HALF_FOV) -> Camera:
        """Cameras of StyleSDF: at distance 1 from the world origin, looking at it, upright.

        Its world is ours; its camera axes (x right, y up, z backward) are not, and are converted here.

        Args:
            viewpoint: Azimuth (towards the face's +x side) and elevation, radians. [B, 2]
            half_fov: Half the field of view, radians. StyleSDF itself counts in degrees. [B] or a number
        """
        pose = torch.cat([viewpoint, viewpoint.new_zeros(len(viewpoint), 4)], dim=1)
        camera = Camera.from_pose(pose, radius=STYLESDF_RADIUS, pivot=(0.0, 0.0, 0.0), focal=1.0)
        intrinsics = camera.intrinsics.clone()
        focal = 0.5 / torch.as_tensor(half_fov, dtype=pose.dtype, device=pose.device).tan()
        intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
        return Camera(camera.cam2world, intrinsics)

    def to_stylesdf(self) -> tuple[Tensor, Tensor]:
        """StyleSDF's viewpoint [B, 2] and half field of view [B] of these cameras, radians.

        The inverse of `from_stylesdf`. Of a camera that StyleSDF cannot have, only the viewing direction and the
        horizontal focal length are kept: roll, shift and an off-centre principal point are lost.
        """
        return self.pose()[:, :2], torch.atan(0.5 / self.intrinsics[:, 0, 0])

    @staticmethod
    def orbit(
        yaw: Tensor | float,
        pitch: Tensor | float,
        *,
        radius: float = EG3D_RADIUS,
        pivot: tuple[float, float, float] = EG3D_PIVOT,
        focal: float = EG3D_FOCAL,
    ) -> Camera:
        """Cameras on a sphere around `pivot`, looking at it, with the head upright in the image.

        Args:
            yaw: Angle to the world's +x side, radians; positive shows more of the face's +x side. [B] or a number
            pitch: Height angle, radians; positive looks down from above. [B] or a number
            radius: Distance from the pivot, world units.
            pivot: Point looked at, world units.
            focal: Focal length divided by the image size.
        """
        angles = torch.broadcast_tensors(
            torch.as_tensor(yaw, dtype=torch.float32).reshape(-1),
            torch.as_tensor(pitch, dtype=torch.float32).reshape(-1),
        )
        upright = torch.zeros(len(angles[0]), 4, device=angles[0].device)
        pose = torch.cat([torch.stack(angles, dim=1), upright], dim=1)
        return Camera.from_pose(pose, radius=radius, pivot=pivot, focal=focal)

    @staticmethod
    @full_precision
    def from_pose(
        pose: Tensor,
        *,
        radius: float = EG3D_RADIUS,
        pivot: tuple[float, float, float] = EG3D_PIVOT,
        focal: float = EG3D_FOCAL,
    ) -> Camera:
        """Cameras from six numbers each, differentiable; `pose` gives them back.

        Args:
            pose: Yaw, pitch, roll in radians, then a shift of the camera along its own axes (right, down, forward) in
                world units. Roll turns the camera clockwise, so the picture turns anticlockwise. [B, 6]
            radius: Distance from the pivot before the shift, world units.
            pivot: Point looked at before the shift, world units.
            focal: Focal length divided by the image size.
        """
        yaw, pitch, roll = pose[:, :3].unbind(dim=1)
        outward = torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()], dim=1)
        upright = _looking_along(-outward)
        cosine, sine = roll.cos()[:, None], roll.sin()[:, None]
        right, down = upright[:, :, 0], upright[:, :, 1]
        rotation = torch.stack([cosine * right + sine * down, cosine * down - sine * right, upright[:, :, 2]], dim=2)
        centre = torch.as_tensor(pivot, dtype=pose.dtype, device=pose.device) + radius * outward
        centre = centre + (rotation @ pose[:, 3:, None])[:, :, 0]
        bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=pose.dtype, device=pose.device).expand(len(pose), 1, 4)
        cam2world = torch.cat([torch.cat([rotation, centre[:, :, None]], dim=2), bottom], dim=1)
        return Camera(cam2world, pinhole_intrinsics(focal).to(pose).repeat(len(pose), 1, 1))

    @full_precision
    def pose(self, *, radius: float = EG3D_RADIUS, pivot: tuple[float, float, float] = EG3D_PIVOT) -> Tensor:
        """The six numbers of `from_pose`: yaw, pitch, roll, shift. [B, 6]"""
        rotation = self.cam2world[:, :3, :3]
        outward = -rotation[:, :, 2]
        yaw = torch.atan2(outward[:, 0], outward[:, 2])
        pitch = torch.asin(outward[:, 1].clamp(-1, 1))
        upright = _looking_along(-outward)
        right = rotation[:, :, 0]
        roll = torch.atan2((right * upright[:, :, 1]).sum(1), (right * upright[:, :, 0]).sum(1))
        centre = torch.as_tensor(pivot, dtype=outward.dtype, device=outward.device) + radius * outward
        shift = (rotation.transpose(1, 2) @ (self.position - centre)[:, :, None])[:, :, 0]
        return torch.cat([torch.stack([yaw, pitch, roll], dim=1), shift], dim=1)


def pinhole_intrinsics(focal: float) -> Tensor:
    """Intrinsics with the principal point in the middle, divided by the image size. [1, 3, 3]"""
    return torch.tensor([[[focal, 0.0, 0.5], [0.0, focal, 0.5], [0.0, 0.0, 1.0]]])


def _looking_along(forward: Tensor) -> Tensor:
    """Rotations with columns right, down, forward for a viewing direction, world y up. [B, 3] → [B, 3, 3]"""
    up = torch.tensor([0.0, 1.0, 0.0], device=forward.device, dtype=forward.dtype).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=1)
    down = torch.linalg.cross(forward, right)
    return torch.stack([right, down, forward], dim=2)
