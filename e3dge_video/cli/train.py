"""`e3dge-video train`: heads → generator → landmarks, global, pose, local, align, blend, matte → pack (directions)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click

from e3dge_video.cli.directions import directions_group

_CONFIG = click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path),
    required=True,
    help="YAML file, or the name of a bundled one such as training/starter_generator.yaml.",
)
_OUT = click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the run; given again, the run goes on."
)
_OVERRIDES = click.argument("overrides", nargs=-1, metavar="[SECTION.KEY=VALUE]…")


@click.group("train")
def train_group() -> None:
    """Train every part of a model. A run logs to its folder (log.jsonl, and events for TensorBoard), may be stopped any
    time and goes on when called again. Several GPUs: torchrun --nproc-per-node N -m e3dge_video.cli.main train …
    """


train_group.add_command(directions_group)


@train_group.command("heads")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--identities", type=click.IntRange(1), default=4000, show_default=True)
@click.option("--views", type=click.IntRange(1), default=5, show_default=True, help="Pictures of each head.")
@click.option("--size", type=click.IntRange(16), default=256, show_default=True, help="Side of the pictures, pixels.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes; all cores unless given.")
@click.option("--maps", default="depth,label", show_default=True, help="Kept beside the picture: depth, label, normal.")
@click.option("--pairs", help="Let a copy with one of these edits follow each head: age,wrinkles,…")
@click.option(
    "--style",
    type=click.Choice(["photo", "toon"]),
    default="photo",
    show_default=True,
    help="How the heads are drawn: the same latent codes as photographs or as cartoons.",
)
@click.option("--sheet", type=click.Path(path_type=Path), help="Also write a contact sheet (PNG) here.")
def heads(
    out: Path,
    identities: int,
    views: int,
    size: int,
    seed: int,
    workers: int | None,
    maps: str,
    pairs: str | None,
    style: Literal["photo", "toon"],
    sheet: Path | None,
) -> None:
    """Render a data set of procedural heads into OUT (needs the extra: pip install 'e3dge-video[heads]')."""
    import os

    from e3dge_video.heads.dataset import write_dataset

    write_dataset(
        out,
        count=identities,
        views=views,
        size=size,
        seed=seed,
        workers=workers or os.cpu_count() or 1,
        maps=tuple(maps.split(",")),
        edit_share=1.0 if pairs else 0.0,
        edits=pairs.split(",") if pairs else None,
        style=style,
    )
    click.echo(f"{identities} heads × {views} views of {size} px in {out}")
    if sheet is not None:
        from e3dge_video.heads.sheet import contact_sheet

        contact_sheet(sheet, style=style)
        click.echo(f"contact sheet in {sheet}")


def _run(
    schema: str,
    function: str,
    config: Path,
    out: Path,
    overrides: tuple[str, ...],
    *,
    taught: tuple[str, str] | None = None,
    taught_by: Callable[[dict[str, Any]], bool] = lambda values: "model" in values,
) -> None:
    """Read a run's options and train; `taught` names schema and function of a run on a bundle's frozen generator, which
    options that `taught_by` accepts describe.
    """
    from e3dge_video.config.load import bundled_config, from_mapping, read_values
    from e3dge_video.training import runs, taught_runs

    path = config if config.exists() else bundled_config(str(config))
    values = read_values(path, overrides)
    module: Any = runs
    if taught is not None and taught_by(values):
        module, (schema, function) = taught_runs, taught
    run: Any = from_mapping(getattr(module, schema), values, source=str(path))
    train: Callable[[Any, Path], dict[str, float]] = getattr(module, function)
    figures = train(run, out)
    for name, value in figures.items():
        click.echo(f"{name:<24} {value:.4f}")


def _run_local(config: Path, out: Path, overrides: tuple[str, ...]) -> None:
    """Train the local branch: of a model with the paper's encoders on its own heads, else on rendered ones."""
    from e3dge_video.weights.bundle import read_spec
    from e3dge_video.weights.catalog import find_bundle

    def papers(values: dict[str, Any]) -> bool:
        spec = read_spec(find_bundle(str(values.get("model", "starter"))))
        return spec.psp is not None or spec.hybrid is not None

    taught = "TaughtLocalRun", "train_taught_local"
    _run("LocalRun", "train_local", config, out, overrides, taught=taught, taught_by=papers)


@train_group.command("generator")
@_CONFIG
@_OUT
@_OVERRIDES
def generator(config: Path, out: Path, overrides: tuple[str, ...]) -> None:
    """Train G on rendered heads: first points, then volume rendering and super-resolution (two runs)."""
    _run("GeneratorRun", "train_generator", config, out, overrides)


@train_group.command("landmarks")
@_CONFIG
@_OUT
@_OVERRIDES
def landmarks(config: Path, out: Path, overrides: tuple[str, ...]) -> None:
    """Train the 3D landmarks of a code."""
    _run("LandmarkRun", "train_landmarks", config, out, overrides)


@train_group.command("global")
@_CONFIG
@_OUT
@_OVERRIDES
def global_encoder(config: Path, out: Path, overrides: tuple[str, ...]) -> None:
    """Train E0 with geometry supervision (§4.1): on rendered heads, and E_ξ with it; or, given a `model`, on heads that
    the generator of this bundle makes up.
    """
    taught = "TaughtGlobalRun", "train_taught_global"
    _run("GlobalRun", "train_global", config, out, overrides, taught=taught)


@train_group.command("pose")
@_CONFIG
@_OUT
@_OVERRIDES
def pose(config: Path, out: Path, overrides: tuple[str, ...]) -> None:
    """Train E_ξ behind a finished E0 (§4.4): on rendered heads or, given a `model`, on those of its generator."""
    _run("PoseRun", "train_pose", config, out, overrides, taught=("TaughtPoseRun", "train_taught_pose"))


@train_group.command("local")
@_CONFIG
@_OUT
@_OVERRIDES
def local(config: Path, out: Path, overrides: tuple[str, ...]) -> None:
    """Train E1 and its way into the generator's features on the source view (§4.2): on rendered heads or, given a
    `model` with the paper's encoders, on those of its generator.
    """
    _run_local(config, out, overrides)


@train_group.command("align")
@_CONFIG
@_OUT
@_OVERRIDES
def align(config: Path, out: Path, overrides: tuple[str, ...]) -> None:
    """Train E_ADA and the fusion with E1 on two views, so that detail holds from elsewhere (§4.3).

    The heads are those of `train local`.
    """
    _run_local(config, out, overrides)


@train_group.command("blend")
@_CONFIG
@_OUT
@_OVERRIDES
def blend(config: Path, out: Path, overrides: tuple[str, ...]) -> None:
    """Train what may be shown of a picture's residual from elsewhere, and under an edit."""
    _run("BlendRun", "train_blend", config, out, overrides)


@train_group.command("matte")
@_CONFIG
@_OUT
@_OVERRIDES
def matte(config: Path, out: Path, overrides: tuple[str, ...]) -> None:
    """Train the foreground matte."""
    _run("MatteRun", "train_matte", config, out, overrides)


@train_group.command("attributes")
@_CONFIG
@_OUT
@_OVERRIDES
def attributes(config: Path, out: Path, overrides: tuple[str, ...]) -> None:
    """Train the attribute reader that evaluation measures edits with."""
    _run("AttributeRun", "train_attributes", config, out, overrides)


@train_group.command("toon")
@_CONFIG
@_OUT
@_OVERRIDES
def toon(config: Path, out: Path, overrides: tuple[str, ...]) -> None:
    """Teach a model to draw cartoons like those in a folder (§7.5); OUT/bundle is the model with it."""
    from e3dge_video.config.load import bundled_config, load_config
    from e3dge_video.training.toon import ToonRun, train_toon

    path = config if config.exists() else bundled_config(str(config))
    for name, value in train_toon(load_config(ToonRun, path, overrides), out).items():
        click.echo(f"{name:<24} {value:.4f}")
    click.echo(f"use it: e3dge-video run VIDEO --toon --model {out / 'bundle'}")


@train_group.command("pack")
@_CONFIG
@_OUT
@_OVERRIDES
def pack(config: Path, out: Path, overrides: tuple[str, ...]) -> None:
    """Find the editing directions and put trained parts together into a model bundle at OUT. Given a `model`: put E0,
    E_ξ and the local branch into the bundle of the generator that taught them.
    """
    from e3dge_video.config.load import bundled_config, from_mapping, read_values
    from e3dge_video.training.pack import PackRun
    from e3dge_video.training.pack import pack as pack_runs
    from e3dge_video.training.taught_runs import TaughtPackRun, pack_taught

    path = config if config.exists() else bundled_config(str(config))
    values = read_values(path, overrides)
    if "model" in values:
        spec = pack_taught(from_mapping(TaughtPackRun, values, source=str(path)), out)
    else:
        spec = pack_runs(from_mapping(PackRun, values, source=str(path)), out)
    size = sum((out / name).stat().st_size for name in spec.files) / 1e6
    click.echo(f"{spec.name}: {size:.1f} MB in {out}; edits: {', '.join(sorted(spec.edits)) or 'none'}")
