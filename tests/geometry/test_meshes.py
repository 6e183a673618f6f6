"""Surfaces from signed distances and from surface points, against shapes whose surface is known."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from e3dge_video.errors import BackendError, InputError
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.meshes import Mesh, depth_mesh, surface_mesh, unwarp_frustum
from e3dge_video.geometry.projection import unproject


def normals(mesh: Mesh) -> NDArray[np.float32]:
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    return np.cross(b - a, c - a)


def ball(size: int, centre: tuple[float, float, float], radius: float) -> torch.Tensor:
    """Distances on a grid whose box has side 1 and whose axes run as in `surface_mesh`. [D, H, W]"""
    line = torch.arange(size) / size - 0.5
    z, y, x = torch.meshgrid(-line, -line, line, indexing="ij")
    return (torch.stack([x, y, z], dim=-1) - torch.tensor(centre)).norm(dim=-1) - radius


def test_a_ball_is_found_where_it_is() -> None:
    centre = (0.1, -0.2, 0.05)
    mesh = surface_mesh(ball(40, centre, 0.2) * 7, side=1.0)
    radii = np.linalg.norm(mesh.vertices - np.array(centre), axis=1)
    assert np.abs(radii - 0.2).max() < 1e-3
    edges = np.sort(np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()  # closed
    outward = mesh.vertices[mesh.faces].mean(axis=1) - np.array(centre)
    turned = (normals(mesh) * outward).sum(axis=1)
    assert (turned > -1e-9).all() and np.median(turned) > 1e-5  # faces look outward; some are slivers


def test_no_surface_is_one_clear_line() -> None:
    with pytest.raises(InputError, match="stays between 1 and 1") as caught:
        surface_mesh(torch.ones(4, 4, 4), side=1.0)
    assert "\n" not in str(caught.value)


def test_without_scikit_image_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("skimage"):
            raise ImportError("No module named 'skimage'")
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(BackendError, match=r"pip install 'e3dge-video\[mesh\]'") as caught:
        surface_mesh(ball(8, (0.0, 0.0, 0.0), 0.2), side=1.0)
    assert "\n" not in str(caught.value)


def test_unwarping_straightens_a_column() -> None:
    """A column along the optical axis widens in the view towards the viewer; in the box it is straight."""
    near, far, size = 0.8, 1.2, 33
    line = torch.linspace(-1, 1, size)
    widening = torch.linspace(far / near, 1, size)
    view = (0.4 * widening[:, None, None] - line.abs()[None, None, :]).expand(size, size, size)[None]
    box = unwarp_frustum(view, near, far)[0]
    seen = box != 1.0
    torch.testing.assert_close(box[-1], view[0, -1])  # the far end is as wide as the view
    straight = (0.4 - line.abs())[None, None] * widening[:, None, None]
    inside = seen & (line.abs() < 0.6)[None, None]
    assert float((box - straight)[inside].abs().max()) < 0.05
    assert not bool(seen[0, 0].any()) and bool(seen[-1].all())


def test_depth_mesh_of_a_plane_faces_the_viewer() -> None:
    camera = Camera.from_stylesdf(torch.zeros(1, 2))
    points = unproject(torch.full((1, 1, 5, 5), 1.0), camera)
    mesh = depth_mesh(points[0].t().unflatten(1, (5, 5)))
    assert mesh.vertices.shape == (25, 3) and mesh.faces.shape == (32, 3)
    assert (normals(mesh)[:, 2] > 0).all()  # towards the camera, which stands on +z
    tall = depth_mesh(torch.randn(3, 4, 6))
    assert len(tall.faces) == 2 * 3 * 5 and tall.faces.max() == 23
