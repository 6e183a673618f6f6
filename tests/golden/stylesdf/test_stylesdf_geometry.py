"""StyleSDF's cameras and meshes against the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stylesdf_reference import close, outputs, tensors
from torch import Tensor

from e3dge_video.config.stylesdf import FFHQ_1024
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.meshes import depth_mesh, surface_mesh, unwarp_frustum
from e3dge_video.geometry.trajectories import stylesdf_sweep, stylesdf_viewpoints
from e3dge_video.models.generators.stylesdf.sdf_renderer import SurfaceRenderer


def official(camera: Camera) -> Tensor:
    """`cam2world` as StyleSDF writes it: the camera's y up, z backward. [B, 3, 4]"""
    return camera.cam2world[:, :3] * torch.tensor([1.0, -1.0, -1.0, 1.0])


def our_cameras() -> dict[str, Tensor]:
    data = tensors("cameras")
    plain = Camera.from_stylesdf(data["a.locations"])
    zoomed = Camera.from_stylesdf(data["a.locations"], torch.deg2rad(data["b.fov_half_deg"][:, 0]))
    near, far = (torch.full((8, 1, 1), depth) for depth in SurfaceRenderer(FFHQ_1024.siren, FFHQ_1024.volume).near_far)
    viewpoints = {
        "sweep": stylesdf_sweep(data["sweep.rand_elev_u01"][:, 0]),
        "gauss": stylesdf_viewpoints(torch.cat([data["gauss.randn_azim"], data["gauss.randn_elev"]], dim=1)),
        "uniform": stylesdf_viewpoints(
            torch.cat([data["uniform.rand_azim"], data["uniform.rand_elev"]], dim=1), distribution="uniform"
        ),
    }
    return {
        "a.cam2world": official(plain),
        "a.viewpoint": data["a.locations"],
        "a.focal": plain.intrinsics[:, :1, :1] * 64,
        "a.near": near,
        "a.far": far,
        "b.cam2world": official(zoomed),
        "b.focal_res128": zoomed.intrinsics[:, :1, :1] * 128,
        **{f"{name}.viewpoint": viewpoint for name, viewpoint in viewpoints.items()},
        **{f"{name}.cam2world": official(Camera.from_stylesdf(value)) for name, value in viewpoints.items()},
    }


@pytest.mark.parametrize("key", outputs("cameras", r".*(locations|fov_half_deg|rand_elev_u01|rand(n?)_(azim|elev))"))
def test_cameras(key: str) -> None:
    close(key, our_cameras()[key], tensors("cameras")[key])


def test_viewpoints_come_back() -> None:
    data = tensors("cameras")
    half_fov = torch.deg2rad(data["b.fov_half_deg"][:, 0])
    viewpoint, angle = Camera.from_stylesdf(data["a.locations"], half_fov).to_stylesdf()
    torch.testing.assert_close(angle, half_fov)
    torch.testing.assert_close(viewpoint[:-1], data["a.locations"][:-1], rtol=0, atol=1e-6)
    # Straight above, the arc sine amplifies rounding to its square root.
    torch.testing.assert_close(viewpoint[-1], data["a.locations"][-1], rtol=0, atol=5e-4)


def test_volume_is_unwarped() -> None:
    data = tensors("mesh")
    volume = data["volume_yxz"][..., 0].permute(0, 3, 1, 2)
    ours = unwarp_frustum(volume, 0.88, 1.12).permute(0, 2, 3, 1)[..., None]
    close("aligned", ours, data["aligned"])


def test_surface_of_a_volume() -> None:
    data = tensors("mesh")
    mesh = surface_mesh(data["aligned"][0, ..., 0].permute(2, 0, 1), side=0.24)
    close("mc.vertices", torch.from_numpy(mesh.vertices), data["mc.vertices"])
    assert np.array_equal(mesh.faces, data["mc.faces"].numpy())


def test_surface_of_a_view() -> None:
    """The reference splits some squares of pixels along the other diagonal; it is the same sheet and faces one way."""
    data = tensors("mesh")
    mesh = depth_mesh(data["xyz_in"][0])
    close("xyz2mesh.vertices", torch.from_numpy(mesh.vertices), data["xyz2mesh.vertices"])
    theirs = data["xyz2mesh.faces"].numpy()
    assert len(mesh.faces) == len(theirs)
    assert squares(mesh.faces, 6) == squares(theirs, 6)
    assert rim(mesh.faces) == rim(theirs)


def squares(faces: np.ndarray, width: int) -> dict[tuple[int, int], list[int]]:
    """Vertices of the triangles in each square of four pixels."""
    found: dict[tuple[int, int], list[int]] = {}
    for face in faces:
        corner = min(face // width), min(face % width)
        found[corner] = sorted({*found.get(corner, []), *face.tolist()})
    return found


def rim(faces: np.ndarray) -> set[tuple[int, int]]:
    """Directed edges that no neighbouring triangle runs the other way."""
    edges = {(int(face[i]), int(face[(i + 1) % 3])) for face in faces for i in range(3)}
    return {(a, b) for a, b in edges if (b, a) not in edges}
