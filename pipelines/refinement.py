"""The stages of `--refine`, between `settle` and `portrait`."""

from __future__ import annotations

from e3dge_video.inversion.refinement.load import MetricFiles
from e3dge_video.inversion.refinement.personalization import PersonalizationConfig
from e3dge_video.pipelines.core.spec import BarrierStage, MapStage
from e3dge_video.pipelines.options import PortraitOptions
from e3dge_video.pipelines.stages.personalize import (
    ChooseKeyFrames,
    CollectKeyFrames,
    GatherKeyFrames,
    ShareTuned,
    Tune,
)
from e3dge_video.pipelines.stages.refine import Refined, RefineFrames, frame_schedule
from e3dge_video.pipelines.stages.setup import SetupModel


def refinement_stages(options: PortraitOptions, model: SetupModel) -> tuple[MapStage | BarrierStage, ...]:
    """What stands between `settle` and `portrait`; the last one gives what `settle` gives, refined."""
    refine = options.refine
    if refine.mode == "none":
        return ()
    if refine.mode == "clip":
        return _personalization_stages(refine.clip, refine.metrics, model)
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


def _personalization_stages(
    config: PersonalizationConfig, metrics: MetricFiles, model: SetupModel
) -> tuple[MapStage | BarrierStage, ...]:
    names = [f"tune{k + 1}" for k in range(config.rounds)]
    rounds = [
        MapStage(
            name,
            "portrait",
            Tune(model, config, metrics),
            {"frames": "gather"} | ({} if before is None else {"before": before}),
            persist=True,
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
        BarrierStage("refined", ShareTuned(config), {"tuned": names[-1], "settled": "settle", "track": "track"}),
    )
