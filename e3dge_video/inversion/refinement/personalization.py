"""One person's own generator: a short tuning of G shared by a whole clip, in the manner of pivotal tuning.

A code predicted by E0 says "somebody like this"; a few hundred steps on key frames of the clip make G draw this person
(Roich et al., "Pivotal Tuning for Latent-based Editing of Real Images", 2022). Rendering a volume with gradients costs
seconds on a CPU, so colours are learned where the surface is already known:

    key frame ─► G₀ once per round ─► depth, α, colours c₀ ─► points x on the surface
    step:  rendering ≈ c₀ + α (shade(x; θ) − shade(x; θ₀)) ─► G₁ ─► picture ─► loss, masked by matte and α

which is exact where a round begins, and as good as the surface is thin after that. Density is only held where it was:
the geometry stays E0's, so that views from the side cannot collapse, and poses stay right.

A scene's key frames share one code offset, and each may have its own beside it, of code and of pose, for what is one
frame's alone: a blink, a shadow, an error of its fit. Own offsets cost more, so what all frames need stays shared.

Letters: K key frames, A scenes, B key frames of one step, R side of the rendering, S of the picture.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.errors import ConfigError
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.projection import unproject
from e3dge_video.inversion.refinement.objective import Objective, head_weight
from e3dge_video.inversion.refinement.registration import moved, read_at
from e3dge_video.models.generators.base import Generator, RenderOutput, Shading

#: Beyond this turn of a camera too much comes into sight that a round's surfaces do not have. [rad]
MOST_POSE_LIMIT = 0.1
#: What becomes of the key frames' own offsets: they kept one frame's matters out of the shared part and are dropped, or
#: every frame gets what lies in time between its neighbours' ones.
OwnOffsets = Literal["drop", "interpolate"]


@dataclass(frozen=True)
class PersonalizationConfig:
    """The schedule. With the starter a step takes about one CPU second."""

    key_frames: int = 24  # of the clip, shared by its scenes
    rounds: int = 3  # surfaces are rendered anew, and the state is kept, at the beginning of each
    steps: int = 30  # of a round
    batch: int = 3  # key frames per step
    code_lr: float = 5e-3
    weight_lr: float = 2e-3  # times the size of a parameter's numbers: networks count in very different units
    final_lr: float = 0.1  # share of the learning rates that is left at the last step, along a cosine
    detail_weight: float = 3.0  # of eyes and mouth, beyond the 1 of everything
    anchor_weight: float = 1.0  # opacity stays where it was
    anchor_points: int = 1024  # per key frame and step
    anchor_spread: float = 0.05  # around the surface, world units
    anchor_step: float = 0.02  # thickness of the matter whose opacity is compared, world units
    drift_weight: float = 10.0  # relative squared change of the weights
    code_weight: float = 0.01  # squared change of the codes
    own_code_lr: float = 4e-3  # of each key frame's own code offset, beside its scene's; 0: there is none
    own_code_weight: float = 0.1  # squared own change
    own_pose_lr: float = 0.0  # of each key frame's own pose offset, radians, and world units for the shift; 0: none
    own_pose_weight: float = 0.01  # squared own change, as a share of the limit
    own_pose_limit: float = 0.01  # the most that any of a pose's six numbers changes, radians or world units
    #: Parts of G that are tuned: those of either generator that draw. The mapping keeps the meaning of codes.
    parts: tuple[str, ...] = ("backbone", "decoder", "superresolution", "renderer")
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.own_pose_limit <= MOST_POSE_LIMIT:
            raise ConfigError(
                f"refine.clip.own_pose_limit is {self.own_pose_limit:g}; give radians (and world units) above 0, at "
                f"most {MOST_POSE_LIMIT:g}"
            )
        for name in ("own_code_lr", "own_pose_lr"):
            if getattr(self, name) < 0:
                raise ConfigError(f"refine.clip.{name} is {getattr(self, name):g}; give a rate above 0, or 0 for none")


@dataclass(frozen=True)
class KeyFrames:
    """What is learned from.

    Attributes:
        image: Crops in [-1, 1]. [K, 3, S, S]
        matte: Foreground, 0..1. [K, 1, S, S]
        detail: Eyes and mouth, 0..1. [K, 1, S, S]
        latents: Settled codes. [K, L, W]
        camera: K cameras.
        scene: Scene of each frame, 0 ... A − 1. [K]
        scenes: A.
        resolution: Side R of the volume rendering, pixels.
    """

    image: Tensor
    matte: Tensor
    detail: Tensor
    latents: Tensor
    camera: Camera
    scene: Tensor
    scenes: int
    resolution: int

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class TuningState:
    """Everything that the next step depends on, so that a stopped tuning goes on to the same bits.

    Attributes:
        step: Steps done.
        values: Tuned parameters by name, the scenes' code offsets as `codes` [A, L, W]; the key frames' own ones, if
            they have any, as `own_codes` [K, L, W] and `own_poses` [K, 6].
        first, second: Adam's moments, by the same names.
        losses: Mean loss of the key frames at the beginning of each round; of the last one also at its end.
    """

    step: int
    values: dict[str, Tensor]
    first: dict[str, Tensor]
    second: dict[str, Tensor]
    losses: tuple[float, ...] = ()

    @property
    def weights(self) -> dict[str, Tensor]:
        """Parameters of the tuned generator that differ from the model's own."""
        return {name: value for name, value in self.values.items() if name not in OFFSETS}


CODES, OWN_CODES, OWN_POSES = OFFSETS = "codes", "own_codes", "own_poses"
#: Parameters whose numbers are smaller, such as biases that were never needed, learn as if they had this size.
_SMALLEST = 0.05


@dataclass(frozen=True)
class _Surface:
    """What a round's rendering of one batch of key frames says, without gradients."""

    rendered: RenderOutput
    points: Tensor  # [B, R², 3]
    camera: Camera
    shading: Shading
    weight: Tensor  # of the picture's pixels [B, 1, S, S]


class Personalizer:
    """Tunes a copy of a generator to the key frames of a clip.

    Args:
        generator: The model's own; left as it is.
        frames: Key frames.
        objective: What is lowered.
        config: Schedule.
    """

    def __init__(
        self,
        generator: Generator,
        frames: KeyFrames,
        objective: Objective,
        config: PersonalizationConfig | None = None,
    ) -> None:
        self.start, self.frames, self.objective = generator, frames, objective
        self.config = config or PersonalizationConfig()
        self.tuned = copy.deepcopy(generator)
        code, zeros = frames.latents.shape[1:], frames.latents.new_zeros
        self.codes = nn.Parameter(zeros(frames.scenes, *code))
        self.own_codes = nn.Parameter(zeros(len(frames), *code)) if self.config.own_code_lr > 0 else None
        self.own_poses = nn.Parameter(zeros(len(frames), 6)) if self.config.own_pose_lr > 0 else None

    def begin(self) -> TuningState:
        """The state before the first step."""
        values = {name: value.detach().clone() for name, value in self._parameters()}
        zeros = {name: torch.zeros_like(value) for name, value in values.items()}
        return TuningState(0, values, zeros, {name: value.clone() for name, value in zeros.items()})

    def round(self, state: TuningState, report: Callable[[int, float], None] | None = None) -> TuningState:
        """One round of steps.

        Args:
            state: Where to go on.
            report: Is told each step's number and loss.

        Returns:
            The state after it; `state` itself is left as it is.
        """
        config = self.config
        parameters = dict(self._parameters())
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(state.values[name])
        rates = {name: self._rate(name) for name in parameters}
        groups = [{"params": [parameter], "lr": rates[name]} for name, parameter in parameters.items()]
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        for name, parameter in parameters.items():
            optimizer.state[parameter] = {
                "step": torch.tensor(float(state.step)),
                "exp_avg": state.first[name].clone(),
                "exp_avg_sq": state.second[name].clone(),
            }
        surfaces = [self._surface(torch.tensor([k])) for k in range(len(self.frames))]
        losses = (*state.losses, self._mean_loss(surfaces))
        total = config.rounds * config.steps
        for step in range(state.step, state.step + config.steps):
            share = config.final_lr + (1 - config.final_lr) * 0.5 * (1 + np.cos(np.pi * step / total))
            for group, rate in zip(optimizer.param_groups, rates.values(), strict=True):
                group["lr"] = rate * share
            optimizer.zero_grad()
            loss = self._step_loss(step, surfaces)
            loss.backward()
            optimizer.step()
            if self.own_poses is not None:
                self.own_poses.data.clamp_(-config.own_pose_limit, config.own_pose_limit)
            if report is not None:
                report(step, float(loss.detach()))
        if state.step + config.steps >= total:
            losses = (*losses, self._mean_loss([self._surface(torch.tensor([k])) for k in range(len(self.frames))]))
        after = TuningState(
            state.step + config.steps,
            {name: value.detach().clone() for name, value in parameters.items()},
            {name: optimizer.state[value]["exp_avg"].clone() for name, value in parameters.items()},
            {name: optimizer.state[value]["exp_avg_sq"].clone() for name, value in parameters.items()},
            losses,
        )
        return after

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield CODES, self.codes
        if self.own_codes is not None:
            yield OWN_CODES, self.own_codes
        if self.own_poses is not None:
            yield OWN_POSES, self.own_poses
        assert isinstance(self.tuned, nn.Module)
        for name, parameter in self.tuned.named_parameters():
            if name.split(".")[0] in self.config.parts and "mapping" not in name.split("."):
                parameter.requires_grad_(True)
                yield name, parameter

    def _rate(self, name: str) -> float:
        config = self.config
        if name in OFFSETS:
            return {CODES: config.code_lr, OWN_CODES: config.own_code_lr, OWN_POSES: config.own_pose_lr}[name]
        assert isinstance(self.start, nn.Module)
        size = float(self.start.get_parameter(name).square().mean().sqrt())
        return config.weight_lr * min(max(size, _SMALLEST), 1.0)

    def _batch(self, step: int) -> Tensor:
        """Key frames of a step: all come up before any comes up again."""
        size, count = self.config.batch, len(self.frames)
        places = np.arange(step * size, (step + 1) * size)
        order = [np.random.default_rng([self.config.seed, int(e)]).permutation(count) for e in places // count]
        return torch.tensor([int(o[p % count]) for o, p in zip(order, places, strict=True)])

    def _latents(self, chosen: Tensor) -> Tensor:
        latents = self.frames.latents[chosen] + self.codes[self.frames.scene[chosen]]
        return latents if self.own_codes is None else latents + self.own_codes[chosen]

    def _camera(self, chosen: Tensor) -> Camera:
        camera = self.frames.camera[chosen]
        return camera if self.own_poses is None else moved(camera, self.own_poses[chosen])

    def _truth(self, chosen: Tensor, known: list[_Surface], drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures as the surfaces' renderings would have them, and how much each pixel counts.

        Where nothing counts they are what was drawn: coarse scales of the objective look across the edge.
        """
        image, weight = self.frames.image[chosen], torch.cat([surface.weight for surface in known])
        if self.own_poses is None:
            return image, weight
        points, cam2world, intrinsics = (
            torch.cat(values)
            for values in zip(*((k.points, k.camera.cam2world, k.camera.intrinsics) for k in known), strict=True)
        )
        rendered_by = Camera(cam2world, intrinsics)
        image, readable = read_at(image, self.frames.matte[chosen], points, rendered_by, self._camera(chosen))
        weight = weight * readable
        return torch.where(weight > 0, image, drawn.detach()), weight

    @torch.no_grad()
    def _surface(self, chosen: Tensor) -> _Surface:
        frames, camera = self.frames, self._camera(chosen)
        planes = self.tuned.planes(self._latents(chosen))
        rendered = self.tuned.render(planes, camera, resolution=frames.resolution)
        points = unproject(rendered.depth, camera)
        emphasis = 1 + self.config.detail_weight * frames.detail[chosen]
        weight = head_weight(rendered.alpha, frames.matte[chosen]) * emphasis
        return _Surface(rendered, points, camera, self.tuned.shade(planes, points), weight)

    @torch.no_grad()
    def _mean_loss(self, surfaces: list[_Surface]) -> float:
        """Mean objective of the key frames as they are rendered."""
        total = 0.0
        for k, surface in enumerate(surfaces):
            chosen = torch.tensor([k])
            image = self.tuned.upsample(surface.rendered, self._latents(chosen))
            total += float(self.objective(image, self.frames.image[chosen], surface.weight))
        return total / len(surfaces)

    def _step_loss(self, step: int, surfaces: list[_Surface]) -> Tensor:
        config, frames = self.config, self.frames
        chosen = self._batch(step)
        known = [surfaces[int(k)] for k in chosen]
        latents = self._latents(chosen)
        planes = self.tuned.planes(latents)
        random = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        points = torch.cat([surface.points for surface in known])
        near = _near(points, frames.camera[chosen], config, random)
        seen = self.tuned.shade(planes, torch.cat([points, near], dim=1))
        image = self.tuned.upsample(_shaded(known, seen, points.shape[1]), latents)
        loss = self.objective(image, *self._truth(chosen, known, image)).mean()
        with torch.no_grad():
            before = self.start.shade(self.start.planes(frames.latents[chosen]), near).density
        held = _opacity(seen.density[:, points.shape[1] :], config) - _opacity(before, config)
        loss = loss + config.anchor_weight * held.square().mean()
        if self.own_codes is not None:
            loss = loss + config.own_code_weight * self.own_codes.square().mean()
        if self.own_poses is not None:
            loss = loss + config.own_pose_weight * (self.own_poses / config.own_pose_limit).square().mean()
        return loss + config.code_weight * self.codes.square().mean() + config.drift_weight * self._drift()

    def _drift(self) -> Tensor:
        """Squared change of the weights, relative to their size, mean over the tensors."""
        assert isinstance(self.start, nn.Module)
        own = dict(self.start.named_parameters())
        changes = [
            (value - own[name]).square().sum() / own[name].square().sum().clamp_min(1e-6)
            for name, value in self._parameters()
            if name not in OFFSETS
        ]
        return torch.stack(changes).mean()


def _near(points: Tensor, camera: Camera, config: PersonalizationConfig, random: torch.Generator) -> Tensor:
    """Points before and behind the surface, along the rays. [B, M, 3]"""
    count = config.anchor_points
    picked = torch.randint(points.shape[1], (len(points), count), generator=random).to(points.device)
    shift = (config.anchor_spread * torch.randn(len(points), count, 1, generator=random)).to(points)
    surface = points.gather(1, picked[..., None].expand(-1, -1, 3))
    return surface + shift * F.normalize(surface - camera.position[:, None], dim=-1)


def _opacity(density: Tensor, config: PersonalizationConfig) -> Tensor:
    """Opacity of a layer of matter of this raw density."""
    return 1 - torch.exp(-config.anchor_step * F.softplus(density - 1))


def _shaded(known: list[_Surface], seen: Shading, count: int) -> RenderOutput:
    """The round's rendering with the change of its surface's colours."""
    rendered = [surface.rendered for surface in known]
    alpha, depth = (torch.cat([getattr(r, name) for r in rendered]) for name in ("alpha", "depth"))

    def changed(name: str) -> Tensor:
        base = torch.cat([getattr(r, name) for r in rendered])
        before = torch.cat([getattr(surface.shading, name) for surface in known])
        change = (getattr(seen, name)[:, :count] - before).transpose(1, 2).unflatten(2, base.shape[-2:])
        return base + alpha * change

    return RenderOutput(changed("rgb"), changed("features"), depth, alpha)
