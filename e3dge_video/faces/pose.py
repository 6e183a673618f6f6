"""The camera of a crop from landmarks: fit a head's own 3D points to the 2D ones (the camera ξ, refined).

A regressed camera shrinks the yaw of real faces by almost half; a least-squares fit of the predicted head's points does
not. The intrinsics are fixed (the crop's), the rotation is free, and so is the place of the head, with a soft prior
that keeps its distance near the generator's radius. The fit is robust (Huber, scale from the median residual), because
landmark networks and heads disagree about single points, and each frame of a batch is solved on its own: results do not
depend on which frames share the batch.

Letters: B frames, N points. Image coordinates run 0..1 over the crop, y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from e3dge_video.geometry.cameras import EG3D_FOCAL, EG3D_PIVOT, EG3D_RADIUS, Camera, pinhole_intrinsics

Array = NDArray[np.float64]

#: Weight of each iBUG point: how rigidly it belongs to the skull and how well it is defined. Lids and lips move
#: with expressions that the head may not share, jaw points slide along the jaw. [68]
RIGIDITY: Array = np.concatenate(
    [
        np.full(17, 0.3),  # jaw
        np.full(10, 0.5),  # brows
        np.full(9, 1.0),  # nose
        np.array([1.0, 0.5, 0.5, 1.0, 0.5, 0.5] * 2),  # eyes: corners, lids
        np.array([1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0, 0.3, 0.3, 0.3, 0.3, 0.3]),  # outer lips
        np.full(8, 0.3),  # inner lips
    ]
)

_ITERATIONS = 25
_CONVERGED = 1e-7
#: Longest step of the rotation vector in one iteration, radians.
_MAX_TURN = 0.6
#: Huber's threshold in robust standard deviations, and the smallest deviation believed, in crop sides.
_HUBER = 1.5
_MIN_DEVIATION = 0.002
#: On the far side of the face, points on the outline count less from this yaw on, and nothing from that yaw on.
_OUTLINE_YAW = (np.radians(10.0), np.radians(30.0))


@dataclass(frozen=True)
class CameraFit:
    """Cameras fitted to landmarks.

    Attributes:
        cam2world: Camera-to-world matrices, OpenCV axes. [B, 4, 4]
        residual: Weighted rms distance of the points, robustly, in crop sides. [B]
        focal: Focal length over image size.
    """

    cam2world: Array
    residual: Array
    focal: float = EG3D_FOCAL

    def camera(self) -> Camera:
        """The same as a `Camera` in single precision."""
        pose = torch.from_numpy(self.cam2world).to(torch.float32)
        return Camera(pose, pinhole_intrinsics(self.focal).repeat(len(pose), 1, 1))


def fit_camera(
    points3d: ArrayLike,
    points2d: ArrayLike,
    weights: ArrayLike | None = None,
    initial: ArrayLike | None = None,
    *,
    silhouette_jaw: bool = False,
    focal: float = EG3D_FOCAL,
    radius: float = EG3D_RADIUS,
    radius_spread: float = 0.05,
    pivot: tuple[float, float, float] = EG3D_PIVOT,
) -> CameraFit:
    """Cameras that best project 3D points onto their landmarks.

    Args:
        points3d: Points of the head, world units; one set for all frames or one each. [N, 3] or [B, N, 3]
        points2d: Landmarks in the crop, 0..1; a frame with a NaN has no face and gets a NaN camera. [B, N, 2]
        weights: Confidence of each point; `RIGIDITY` for 68 points and 1 otherwise when None. [N] or [B, N]
        initial: Cameras to start from; closed-form weak perspective when None. [B, 4, 4]
        silhouette_jaw: Points 0–16 follow the visible outline; on the far side of a turned face they are no places of
            the head and lose their weight.
        focal: Focal length over image size.
        radius: Expected distance of the camera from the pivot, world units.
        radius_spread: Standard deviation of the logarithm of that distance; crops of real faces vary by a few percent.
        pivot: Point of the head that the distance is measured to.
    """
    target = np.asarray(points2d, dtype=np.float64)
    batch, count = target.shape[:2]
    centre = np.asarray(pivot, dtype=np.float64)
    shape = np.broadcast_to(np.asarray(points3d, dtype=np.float64), (batch, count, 3)) - centre
    weight = _weights(weights, batch, count)
    # Frames without a face are solved as any other, for a head seen from the front, and blanked in the end.
    seen: NDArray[np.bool_] = np.asarray(np.isfinite(target.reshape(batch, 2 * count)).all(axis=1))
    front = focal / radius * shape[..., :2] * (1, -1) + 0.5
    target = np.where(seen[:, None, None], target, front)
    rotation, place = _start(shape, target, weight, focal) if initial is None else _split(initial, centre)

    moving = np.ones(batch, dtype=bool)
    for _ in range(_ITERATIONS):
        used = weight * _outline_weight(rotation, place) if silhouette_jaw and count == 68 else weight
        turned = shape @ np.swapaxes(rotation, 1, 2)
        error, jacobian = _residuals(turned, place, target, focal)
        robust, deviation = _huber(error, used)
        step = _newton_step(jacobian, error, used * robust, deviation, place, radius, radius_spread)
        step[~moving] = 0.0
        rotation = _turned(step[:, :3]) @ rotation
        place = place + step[:, 3:]
        # The head stays in front of the camera, whatever the landmarks say.
        place[:, 2] = np.clip(place[:, 2], 0.4 * radius, 2.5 * radius)
        moving &= np.abs(step).max(axis=1) > _CONVERGED
        if not moving.any():
            break

    used = weight * _outline_weight(rotation, place) if silhouette_jaw and count == 68 else weight
    error, _ = _residuals(shape @ np.swapaxes(rotation, 1, 2), place, target, focal)
    robust, _ = _huber(error, used)
    total = (used * robust).sum(axis=1)
    residual = np.sqrt((used * robust * (error**2).sum(axis=2)).sum(axis=1) / np.maximum(total, 1e-12))
    cam2world = _joined(rotation, place, centre)
    cam2world[~seen], residual[~seen] = np.nan, np.nan
    return CameraFit(cam2world, residual, focal)


def camera_angles(cam2world: ArrayLike, pivot: tuple[float, float, float] = EG3D_PIVOT) -> Array:
    """Yaw, pitch and roll of cameras around a head, radians, as `Camera.orbit` means them. [..., 4, 4] → [..., 3]

    Roll is the camera's: positive when the camera leans clockwise, so the head seems to lean counter-clockwise.
    """
    matrix = np.asarray(cam2world, dtype=np.float64)
    # Where the camera looks from, taken from its axis: the place of the head in the crop is not part of the pose.
    outward = -matrix[..., :3, 2]
    yaw = np.arctan2(outward[..., 0], outward[..., 2])
    pitch = np.arcsin(np.clip(outward[..., 1], -1, 1))
    level = np.stack([np.cos(yaw), np.zeros_like(yaw), -np.sin(yaw)], axis=-1)
    down = np.cross(-outward, level)
    right = matrix[..., :3, 0]
    roll = np.arctan2((right * down).sum(axis=-1), (right * level).sum(axis=-1))
    return np.stack([yaw, pitch, roll], axis=-1)


def _weights(weights: ArrayLike | None, batch: int, count: int) -> Array:
    if weights is None:
        weights = RIGIDITY if count == len(RIGIDITY) else np.ones(count)
    return np.broadcast_to(np.asarray(weights, dtype=np.float64), (batch, count))


def _split(cam2world: ArrayLike, centre: Array) -> tuple[Array, Array]:
    """World-to-camera rotation, and the pivot in camera coordinates. [B, 4, 4] → [B, 3, 3], [B, 3]"""
    matrix = np.asarray(cam2world, dtype=np.float64)
    rotation = np.swapaxes(matrix[:, :3, :3], 1, 2)
    return rotation, (rotation @ (centre - matrix[:, :3, 3])[..., None])[..., 0]


def _joined(rotation: Array, place: Array, centre: Array) -> Array:
    """Inverse of `_split`."""
    matrix = np.zeros((len(rotation), 4, 4))
    matrix[:, :3, :3] = np.swapaxes(rotation, 1, 2)
    matrix[:, :3, 3] = centre - (matrix[:, :3, :3] @ place[..., None])[..., 0]
    matrix[:, 3, 3] = 1.0
    return matrix


def _start(shape: Array, target: Array, weight: Array, focal: float) -> tuple[Array, Array]:
    """Weak perspective in closed form: an affine map by least squares, its rotation by SVD."""
    design = np.concatenate([shape, np.ones((*shape.shape[:2], 1))], axis=2)
    weighted = design * weight[..., None]
    # A little ridge keeps flat or degenerate point sets solvable.
    normal = np.swapaxes(weighted, 1, 2) @ design + 1e-9 * np.eye(4)
    affine = np.swapaxes(np.linalg.solve(normal, np.swapaxes(weighted, 1, 2) @ target), 1, 2)  # [B, 2, 4]
    left, scale, right = np.linalg.svd(affine[:, :, :3], full_matrices=False)
    rows = left @ right
    rotation = np.concatenate([rows, np.cross(rows[:, 0], rows[:, 1])[:, None]], axis=1)
    distance = focal / np.maximum(scale.mean(axis=1), 1e-6)
    middle = (affine[:, :, 3] - 0.5) * (distance / focal)[:, None]
    return rotation, np.concatenate([middle, distance[:, None]], axis=1)


def _residuals(turned: Array, place: Array, target: Array, focal: float) -> tuple[Array, Array]:
    """Projection error and its derivative by (rotation vector, place). [B, N, 2], [B, N, 2, 6]"""
    local = turned + place[:, None]
    inverse = 1.0 / np.maximum(local[..., 2], 1e-3)
    x, y = local[..., 0] * inverse, local[..., 1] * inverse
    error = np.stack([focal * x + 0.5, focal * y + 0.5], axis=-1) - target
    zero = np.zeros_like(x)
    by_point = (
        focal
        * inverse[..., None, None]
        * np.stack([np.stack([zero + 1, zero, -x], axis=-1), np.stack([zero, zero + 1, -y], axis=-1)], axis=-2)
    )
    # A small rotation w moves a turned point p by w × p.
    p0, p1, p2 = turned[..., 0], turned[..., 1], turned[..., 2]
    by_turn = np.stack(
        [
            np.stack([zero, p2, -p1], axis=-1),
            np.stack([-p2, zero, p0], axis=-1),
            np.stack([p1, -p0, zero], axis=-1),
        ],
        axis=-2,
    )
    return error, np.concatenate([by_point @ by_turn, by_point], axis=-1)


def _huber(error: Array, weight: Array) -> tuple[Array, Array]:
    """Huber's weight of each point and the robust standard deviation of each frame. [B, N], [B]"""
    length = np.linalg.norm(error, axis=2)
    # Median over the points that count; 1.18 is the median of a Rayleigh variable with unit deviation.
    counted = np.where(weight > 0.2, length, np.nan)
    enough = np.isfinite(counted).sum(axis=1) >= 4
    counted[~enough] = length[~enough]
    deviation = np.maximum(np.nanmedian(counted, axis=1) / 1.18, _MIN_DEVIATION)
    limit = _HUBER * deviation[:, None]
    return np.where(length <= limit, 1.0, limit / np.maximum(length, 1e-12)), deviation


def _newton_step(
    jacobian: Array, error: Array, weight: Array, deviation: Array, place: Array, radius: float, spread: float
) -> Array:
    """One damped Gauss–Newton step, with the prior on the distance. [B, 6]"""
    batch = len(error)
    rows = jacobian.reshape(batch, -1, 6)
    scaled = rows * np.repeat(weight / deviation[:, None] ** 2, 2, axis=1)[..., None]
    normal = np.swapaxes(rows, 1, 2) @ scaled
    gradient = (np.swapaxes(scaled, 1, 2) @ error.reshape(batch, -1, 1))[..., 0]
    distance = place[:, 2]
    slope = 1.0 / (distance * spread)
    normal[:, 5, 5] += slope**2
    gradient[:, 5] += slope * np.log(distance / radius) / spread
    normal[:, range(6), range(6)] *= 1 + 1e-9
    step = -np.linalg.solve(normal, gradient[..., None])[..., 0]
    turn = np.linalg.norm(step[:, :3], axis=1)
    return step * np.minimum(1.0, _MAX_TURN / np.maximum(turn, 1e-12))[:, None]


def _turned(vector: Array) -> Array:
    """Rotation matrices of rotation vectors (Rodrigues). [B, 3] → [B, 3, 3]"""
    angle = np.linalg.norm(vector, axis=1)[:, None, None]
    x, y, z = vector.T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    sine = np.sinc(angle / np.pi)
    versine = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.eye(3) + sine * cross + versine * (cross @ cross)


def _outline_weight(rotation: Array, place: Array) -> Array:
    """Weights of 68 points: 1, falling to 0 for the jaw on the side that turns away from the camera. [B, 68]"""
    outward = -rotation[:, 2]
    yaw = np.arctan2(outward[:, 0], outward[:, 2])
    low, high = _OUTLINE_YAW
    far = np.clip((high - np.abs(yaw)) / (high - low), 0.0, 1.0)
    weight = np.ones((len(rotation), 68))
    # Points 0–7 lie to the image's left (world -x), which a camera on the +x side (yaw > 0) sees last.
    weight[:, 0:8] = np.where(yaw > 0, far, 1.0)[:, None]
    weight[:, 9:17] = np.where(yaw < 0, far, 1.0)[:, None]
    return weight
