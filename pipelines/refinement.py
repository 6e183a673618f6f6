"""The stages of `--refine`, between `settle` and `portrait`."""

from __future__ import annotations

from e3dge_video.pipelines.core.spec import BarrierStage, MapStage
from e3dge_video.pipelines.options import PortraitOptions, RefineOptions
from e3dge_video.pipelines.stages.personalize import (
    ChooseKeyFrames,
    CollectKeyFrames,
    GatherKeyFrames,
    ShareTuned,
    Tune,
)
from e3dge_video.pipelines.stages.refine import Refined, RefineFrames, frame_schedule
from e3dge_video.pipelines.stages.setup import SetupModel

#: Of what a round keeps. Part of its key: a stopped run whose state has another format tunes anew and reads none of it.
_STATE_FORMAT = 2


def refinement_stages(options: PortraitOptions, model: SetupModel) -> tuple[MapStage | BarrierStage, ...]:
    """What stands between `settle` and `portrait`; the last one gives what `settle` gives, refined."""
    refine = options.refine
    if refine.mode == "none":
        return ()
    if refine.mode == "clip":
        return _personalization_stages(refine, model)
    schedule = refine.frames or frame_schedule(refine.mode, options.device)
    return (
        MapStage(
            "refine",
            "portrait",
            RefineFrames(model, schedule, refine.metrics),
            {"crops": "prep", "track": "track", "settled": "settle"},
            persist=True,
        ),
        BarrierStage(
            "refined", Refined(options.smooth_s), {"refined": "refine", "settled": "settle", "track": "track"}
        ),
    )


def _personalization_stages(options: RefineOptions, model: SetupModel) -> tuple[MapStage | BarrierStage, ...]:
    config = options.clip
    names = [f"tune{k + 1}" for k in range(config.rounds)]
    rounds = [
        MapStage(
            name,
            "portrait",
            Tune(model, config, options.metrics),
            {"frames": "gather"} | ({} if before is None else {"before": before}),
            persist=True,
            version=_STATE_FORMAT,
        )
        for name, before in zip(names, [None, *names], strict=False)
    ]
    return (
        BarrierStage("choose", ChooseKeyFrames(config.key_frames), {"settled": "settle", "track": "track"}),
        MapStage(
            "collect",
            "portrait",
            CollectKeyFrames(model),
            {"chosen": "choose", "crops": "prep", "track": "track", "settled": "settle"},
            persist=True,
        ),
        BarrierStage("gather", GatherKeyFrames(), {"collected": "collect"}),
        *rounds,
        BarrierStage(
            "refined",
            ShareTuned(options.own_offsets),
            {"tuned": names[-1], "settled": "settle", "track": "track", "chosen": "choose"},
        ),
    )
