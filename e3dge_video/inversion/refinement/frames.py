"""P and P+C: pose, or pose and code, of single frames adjusted for a few steps (§4.4, Table 1).

Frames are optimised side by side but know nothing of each other: losses are summed, Adam works number by number, and a
frame that has stopped getting better is frozen while its neighbours go on. So a frame's result is the same whichever
frames share its batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.geometry.cameras import Camera
from e3dge_video.inversion.refinement.objective import Objective
from e3dge_video.inversion.refinement.registration import moved
from e3dge_video.models.generators.base import Generator, RenderOutput


@dataclass(frozen=True)
class FrameRefinementConfig:
    """One schedule. The defaults are the paper's for P."""

    steps: int = 200  # at most
    pose_lr: float = 1e-3  # radians, and world units for the shift
    code_lr: float = 0.0  # 0: the code is left alone
    decay: float = 0.75  # of both rates ...
    decay_every: int = 100  # ... after so many steps
    coarseness: int = 1  # the volume is rendered with so many times fewer pixels on a side
    tolerance: float = 1e-3  # a frame stops when its best loss fell by less than this share ...
    window: int = 25  # ... within so many steps


#: The paper's schedules (PAPER.md), for a GPU.
POSE = FrameRefinementConfig()
POSE_AND_CODE = FrameRefinementConfig(steps=300, code_lr=5e-3)


def quick(config: FrameRefinementConfig) -> FrameRefinementConfig:
    """A schedule for a CPU in place of the paper's: fewer and larger steps, a quarter of the rays."""
    return FrameRefinementConfig(
        steps=24,
        pose_lr=4 * config.pose_lr,
        code_lr=4 * config.code_lr,
        decay=0.5,
        decay_every=8,
        coarseness=2,
        tolerance=1e-2,
        window=8,
    )


@dataclass(frozen=True)
class RefinedFrames:
    """Frames after their optimisation.

    Attributes:
        camera: Their cameras.
        offset: What is added to their codes; zero for P. [B, L, W]
        loss_before: Objective at the start. [B]
        loss_after: The lowest that was reached, which is what `camera` and `offset` are of. [B]
        steps: Steps until a frame was frozen. [B]
    """

    camera: Camera
    offset: Tensor
    loss_before: Tensor
    loss_after: Tensor
    steps: Tensor


def refine_frames(
    generator: Generator,
    image: Tensor,
    weight: Tensor,
    latents: Tensor,
    camera: Camera,
    objective: Objective,
    resolution: int,
    config: FrameRefinementConfig = POSE,
    report: Callable[[int, float], None] | None = None,
) -> RefinedFrames:
    """Adjust cameras, and codes if asked for, to pictures. The generator is left as it is.

    Args:
        generator: G.
        image: Pictures in [-1, 1]. [B, 3, S, S]
        weight: What counts of them: matte, and a head is there. The background counts 0. [B, 1, S, S]
        latents: Codes to start from. [B, L, W]
        camera: Cameras to start from.
        objective: What is lowered.
        resolution: Side of the model's volume rendering, pixels.
        config: Schedule.
        report: Is told each step's number and mean loss.
    """
    with torch.enable_grad():
        pose = torch.zeros_like(camera.pose(), requires_grad=True)
        code = torch.zeros_like(latents, requires_grad=config.code_lr > 0)
        groups = [{"params": [pose], "lr": config.pose_lr}]
        if config.code_lr > 0:
            groups.append({"params": [code], "lr": config.code_lr})
        optimizer = torch.optim.Adam(groups)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, config.decay_every, config.decay)
        fixed = None if config.code_lr > 0 else generator.planes(latents)

        def losses() -> Tensor:
            planes = generator.planes(latents + code) if fixed is None else fixed
            rendered = generator.render(planes, moved(camera, pose), resolution=max(1, resolution // config.coarseness))
            shown = generator.upsample(_enlarged(rendered, resolution), latents + code)
            return objective(shown, image, weight)

        best = _Best(pose, code)
        for step in range(config.steps):
            optimizer.zero_grad()
            loss = losses()
            best.take(loss.detach(), pose, code, step, config)
            if report is not None:
                report(step, float(loss.detach().mean()))
            if bool(best.frozen.all()):
                break
            torch.autograd.backward(loss.sum())
            for gradient in (value.grad for value in (pose, code) if value.grad is not None):
                torch.nan_to_num_(gradient, nan=0.0, posinf=0.0, neginf=0.0)  # such a frame stays; the others go on
            optimizer.step()
            schedule.step()
        else:
            with torch.no_grad():
                best.take(losses(), pose, code, config.steps, config)
    return RefinedFrames(moved(camera, best.pose), best.code, best.first, best.loss, best.steps)


class _Best:
    """The lowest loss of each frame so far, what gave it, and which frames are done."""

    def __init__(self, pose: Tensor, code: Tensor) -> None:
        self.pose, self.code = pose.detach().clone(), code.detach().clone()
        self.loss = self.first = torch.full((len(pose),), torch.inf, device=pose.device)
        self.frozen = torch.zeros(len(pose), dtype=torch.bool, device=pose.device)
        self.steps = torch.zeros(len(pose), dtype=torch.int32, device=pose.device)
        self._history: list[Tensor] = []

    def take(self, loss: Tensor, pose: Tensor, code: Tensor, step: int, config: FrameRefinementConfig) -> None:
        """Note the losses of a step; frozen frames stay as they are."""
        if step == 0:
            self.first = loss.clone()
        better = (loss < self.loss) & ~self.frozen
        self.loss = torch.where(better, loss, self.loss)
        self.pose = torch.where(better[:, None], pose.detach(), self.pose)
        self.code = torch.where(better[:, None, None], code.detach(), self.code)
        self.steps = torch.where(self.frozen, self.steps, step)
        self._history.append(self.loss)
        if step >= config.window:
            self.frozen |= self.loss >= (1 - config.tolerance) * self._history[step - config.window]


def _enlarged(rendered: RenderOutput, size: int) -> RenderOutput:
    """A rendering at the side that G₁ expects."""
    if rendered.rgb.shape[-1] == size:
        return rendered
    maps = {name: getattr(rendered, name) for name in ("rgb", "features", "depth", "alpha")}
    return RenderOutput(
        **{
            name: F.interpolate(values, (size, size), mode="bilinear", align_corners=False)
            for name, values in maps.items()
        }
    )
