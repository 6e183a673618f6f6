"""Two views of heads that a frozen generator makes up, for the paper's training of the local branch (§4.2, §4.3)."""

from __future__ import annotations

import numpy as np
import torch

from e3dge_video.geometry.cameras import Camera
from e3dge_video.training.teacher import Teacher, TeacherBatch
from e3dge_video.training.view_pairs import ViewPairs


class TeacherPairs:
    """Pairs of a teacher's own pictures; everything of them counts.

    Args:
        teacher: The generator.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def draw(self, count: int, rng: np.random.Generator, *, step: int = 0) -> ViewPairs:
        return self._pairs(self.teacher.draw(count, rng, views=2, share=self.teacher.share(step)))

    def held_out(self, index: int) -> ViewPairs:
        return self._pairs(self.teacher.draw(1, np.random.default_rng([17, index]), views=2))

    def _pairs(self, batch: TeacherBatch) -> ViewPairs:
        image = torch.stack([view.image for view in batch.views], dim=1)
        cameras = zip(*(view.camera.to_eg3d() for view in batch.views), strict=True)
        return ViewPairs(
            image=image,
            truth=image,
            alpha=torch.ones_like(image[:, :, :1]),
            landmarks=image.new_zeros(*image.shape[:2], 68, 2),  # nothing of the paper's looks at them
            camera=Camera.from_eg3d(torch.stack([label for pair in cameras for label in pair])),
            z=batch.latents[:, None].expand(-1, 2, -1, -1),
            neural=torch.stack([view.rendered.rgb for view in batch.views], dim=1),
            whole=torch.stack([view.whole for view in batch.views], dim=1),
        )
