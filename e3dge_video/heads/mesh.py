"""Meshes of a head: one step of Catmull-Clark subdivision as a fixed matrix, corner texture coordinates, normals."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray


@dataclass(frozen=True)
class Subdivision:
    """Quads after one subdivision, and the matrix that moves coarse vertices to fine ones.

    Attributes:
        weights: Fine positions are `weights @ coarse`. [M, N] sparse
        quads: Corner vertices of the fine faces; face f gives rows 4f..4f+3. [4F, 4]
    """

    weights: sp.csr_matrix
    quads: NDArray[np.int32]


def catmull_clark(quads: NDArray[np.integer], count: int, smooth: NDArray[np.bool_]) -> Subdivision:
    """Subdivide once; corners where `smooth` is False keep their place, and edges between such corners stay straight.

    Args:
        quads: Corner vertices. [F, 4]
        count: Number of coarse vertices N; all of them must be used.
        smooth: Whether a vertex follows Catmull and Clark's rules. [N]
    """
    n_faces = len(quads)
    ends = np.stack([quads, np.roll(quads, -1, axis=1)], axis=2).reshape(-1, 2)
    edges, edge_of = np.unique(np.sort(ends, axis=1), axis=0, return_inverse=True)
    edge_of = edge_of.reshape(-1)
    n_edges = len(edges)
    face_points = sp.csr_matrix(
        (np.full(4 * n_faces, 0.25), (np.repeat(np.arange(n_faces), 4), quads.reshape(-1))), shape=(n_faces, count)
    )
    midpoints = sp.csr_matrix(
        (np.full(2 * n_edges, 0.5), (np.repeat(np.arange(n_edges), 2), edges.reshape(-1))), shape=(n_edges, count)
    )
    faces_of_edge = sp.csr_matrix(
        (np.ones(4 * n_faces), (edge_of, np.repeat(np.arange(n_faces), 4))), shape=(n_edges, n_faces)
    )
    edge_valence = np.asarray(faces_of_edge.sum(1)).reshape(-1)
    interior = (edge_valence == 2) & smooth[edges].any(axis=1)
    edge_points = _rows(interior, 0.5 * midpoints + 0.25 * faces_of_edge @ face_points, midpoints)

    faces_of_vertex = sp.csr_matrix(
        (np.ones(4 * n_faces), (quads.reshape(-1), np.repeat(np.arange(n_faces), 4))), shape=(count, n_faces)
    )
    edges_of_vertex = sp.csr_matrix(
        (np.ones(2 * n_edges), (edges.reshape(-1), np.repeat(np.arange(n_edges), 2))), shape=(count, n_edges)
    )
    valence = np.asarray(faces_of_vertex.sum(1)).reshape(-1)
    rim_edges = edges_of_vertex @ sp.diags((edge_valence == 1).astype(float))
    rim = np.asarray(rim_edges.sum(1)).reshape(-1) > 0
    identity = sp.identity(count, format="csr")
    inverse = sp.diags(1.0 / valence)
    inner_rule = (
        inverse @ inverse @ (faces_of_vertex @ face_points)
        + 2 * inverse @ sp.diags(1.0 / np.asarray(edges_of_vertex.sum(1)).reshape(-1)) @ (edges_of_vertex @ midpoints)
        + sp.diags((valence - 3) / valence)
    )
    rim_rule = 0.5 * identity + 0.25 * rim_edges @ midpoints
    vertex_points = _rows(rim, rim_rule, inner_rule)
    vertex_points = _rows(smooth, vertex_points, identity)

    weights = sp.vstack([vertex_points, edge_points, face_points]).tocsr().astype(np.float32)
    edge_index = count + edge_of.reshape(-1, 4)
    centre = np.repeat(count + n_edges + np.arange(n_faces)[:, None], 4, axis=1)
    fine = np.stack([quads, edge_index, centre, np.roll(edge_index, 1, axis=1)], axis=2)
    return Subdivision(weights, fine.reshape(-1, 4).astype(np.int32))


def subdivide_corners(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Corner values of the fine faces, bilinear, in the order of `catmull_clark`. [F, 4, C] → [4F, 4, C]"""
    middle = 0.5 * (values + np.roll(values, -1, axis=1))
    centre = np.repeat(values.mean(axis=1, keepdims=True), 4, axis=1)
    fine = np.stack([values, middle, centre, np.roll(middle, 1, axis=1)], axis=2)
    return fine.reshape(-1, 4, values.shape[-1])


def split_seams(
    quads: NDArray[np.int32], uv: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Give each (vertex, texture coordinate) pair an index of its own.

    Returns:
        Source vertex of each new vertex [R], quads over the new vertices [F, 4], texture coordinates [R, 2].
    """
    keys = np.concatenate([quads.reshape(-1, 1), np.round(uv.reshape(-1, 2) * 65536).astype(np.int64)], axis=1)
    unique, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return unique[:, 0].astype(np.int32), inverse.reshape(quads.shape).astype(np.int32), uv.reshape(-1, 2)[first]


def triangulate(quads: NDArray[np.int32]) -> NDArray[np.int32]:
    """Two triangles per quad; quad q gives rows 2q and 2q+1. [F, 4] → [2F, 3]"""
    return quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)


@numba.njit(cache=True)
def vertex_normals(vertices: NDArray[np.float32], triangles: NDArray[np.int32]) -> NDArray[np.float32]:
    """Unit normals, area-weighted over the triangles around each vertex. [N, 3]"""
    normals = np.zeros_like(vertices)
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        vx, vy, vz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in (a, b, c):
            normals[k, 0] += nx
            normals[k, 1] += ny
            normals[k, 2] += nz
    for i in range(normals.shape[0]):
        length = np.sqrt(normals[i, 0] ** 2 + normals[i, 1] ** 2 + normals[i, 2] ** 2)
        if length > 1e-20:
            normals[i] /= length
    return normals


def _rows(choice: NDArray[np.bool_], if_true: sp.spmatrix, if_false: sp.spmatrix) -> sp.csr_matrix:
    """Row-wise selection between two sparse matrices."""
    chosen = choice.astype(np.float64)
    return (sp.diags(chosen) @ if_true + sp.diags(1.0 - chosen) @ if_false).tocsr()
