"""`e3dge-video train directions`: editing directions of any generator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from e3dge_video.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from e3dge_video.weights.bundle import EditSpec

_AS = click.option("--as", "name", metavar="NAME", help="Also make a model of this name: a copy with the edits added.")
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace an imported model of this name.")
_DEVICE = click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, …")
_BOUNDARIES = click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of boundaries; `models import` takes it, too."
)


@click.group("directions")
def directions_group() -> None:
    """Find editing directions: exact ones for generators trained here, linear boundaries from scores for any.

    \b
    e3dge-video train directions sample ffhq --out samples
    # add columns of scores to samples/images.csv and save it as scores.csv, or let a network score the pictures:
    e3dge-video train directions score samples --classifier net.pt --attributes smile,age --out scores.csv
    e3dge-video train directions fit samples --scores scores.csv --out boundaries --as ffhq-edits
    e3dge-video train directions pairs starter --out boundaries
    """


@directions_group.command("sample")
@click.argument("model")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder; given again, it goes on.")
@click.option("--count", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--truncation",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.7,
    show_default=True,
    help="Less: better pictures of less variety.",
)
@_DEVICE
def sample(model: str, out: Path, count: int, seed: int, truncation: float, device: str) -> None:
    """Draw codes of MODEL (name or folder) and render them from the front."""
    from e3dge_video.training.code_samples import INDEX_FILE, draw_samples

    samples = draw_samples(model, out, count=count, seed=seed, truncation=truncation, device=device)
    click.echo(f"{len(samples)} pictures in {out}; to score them, add columns to {out / INDEX_FILE}")


@directions_group.command("score")
@click.argument("samples", type=click.Path(path_type=Path))
@click.option(
    "--classifier",
    type=click.Path(path_type=Path),
    required=True,
    help="TorchScript network: pictures [B, 3, H, H] in [-1, 1] → scores [B, A]. Use only files that you trust.",
)
@click.option("--attributes", required=True, help="Names of its A scores, in order: smile,age")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The table of scores (CSV).")
@_DEVICE
def score(samples: Path, classifier: Path, attributes: str, out: Path, device: str) -> None:
    """Let a network score the pictures in the folder SAMPLES."""
    from e3dge_video.training.code_samples import read_samples, write_scores
    from e3dge_video.training.scores import classifier_scores

    read = read_samples(samples)
    write_scores(out, read, classifier_scores(classifier, read, attributes.split(","), device=device))
    click.echo(f"{len(read)} pictures scored in {out}")


@directions_group.command("fit")
@click.argument("samples", type=click.Path(path_type=Path))
@click.option(
    "--scores", type=click.Path(path_type=Path), required=True, help="CSV: image,ATTRIBUTE,… one line for each picture."
)
@_BOUNDARIES
@click.option("--attributes", help="Only these columns: smile,age")
@click.option("--extremes", type=float, default=0.1, show_default=True, help="Share of the scores taken at either end.")
@click.option(
    "--against",
    multiple=True,
    metavar="NAME=OTHER,…",
    help="Leave others alone, repeatable: smile=age,glasses makes smile orthogonal to these.",
)
@click.option("--layers", metavar="FIRST-LAST", help="The edits move these layers of the code only, as 0-7.")
@click.option("--model", help="Name or folder of the samples' model, if they do not say where it is.")
@_AS
@_OVERWRITE
def fit(
    samples: Path, scores: Path, out: Path, attributes: str | None, extremes: float, against: tuple[str, ...],
    layers: str | None, model: str | None, name: str | None, overwrite: bool,
) -> None:  # fmt: skip
    """Fit linear boundaries to scores of the pictures in the folder SAMPLES (InterfaceGAN)."""
    from e3dge_video.training.boundary_fit import FitOptions, fit_boundaries
    from e3dge_video.training.code_samples import check_generator, key_of, read_samples
    from e3dge_video.training.scores import read_scores
    from e3dge_video.weights.bundle import read_spec

    read = read_samples(samples)
    folder = check_generator(read, model or read.drawing.model)
    config = read_spec(folder).generator
    table = read_scores(scores, read, attributes.split(",") if attributes else ())
    found = fit_boundaries(
        read, table, config, FitOptions(extremes=extremes), against=_against(against),
        layers=_layers(layers, config.latent_shape[0]),
    )  # fmt: skip
    _write(folder, out, found.directions, found.edits, found.figures, name, overwrite)
    for attribute, figures in found.figures.items():
        parts = [(part.prefix.rstrip("_"), figures[key_of(part)]) for part in config.code_parts]
        accuracy = ", ".join(f"{part} {values['held_out_accuracy']:.2f}".strip() for part, values in parts)
        low, high = found.edits[attribute].limits
        click.echo(
            f"{attribute:<14} {figures['low']} low, {figures['high']} high; held-out accuracy {accuracy}; "
            f"strengths {low:g} … {high:g}"
        )


@directions_group.command("pairs")
@click.argument("generator")
@_BOUNDARIES
@click.option("--edits", help="Only these: age,smile")
@click.option("--pairs", type=click.IntRange(2), default=512, show_default=True)
@click.option("--seed", type=int, default=3, show_default=True)
@_AS
@_OVERWRITE
def pairs(
    generator: str, out: Path, edits: str | None, pairs: int, seed: int, name: str | None, overwrite: bool
) -> None:
    """Exact directions of a GENERATOR trained on procedural heads (name or folder of a model, or of a run).

    `train pack` does the same with its configuration.
    """
    from e3dge_video.training.directions import DirectionConfig, edit_directions
    from e3dge_video.training.runs import load_generator_run
    from e3dge_video.weights.catalog import find_bundle

    folder = Path(generator) if Path(generator).is_dir() else find_bundle(generator)
    config = DirectionConfig(pairs=pairs, seed=seed)
    if edits:
        config = DirectionConfig(pairs=pairs, seed=seed, edits=tuple(edits.split(",")))
    network = load_generator_run(folder)
    directions, specs = edit_directions(network, config)
    figures = {edit: {"exact_pairs": pairs, "seed": seed} for edit in directions}
    _write(folder, out, directions, specs, figures, name, overwrite, network.config)
    click.echo(f"{len(directions)} edits in {out}: {', '.join(sorted(directions))}")


def _write(
    folder: Path,
    out: Path,
    directions: Mapping[str, Tensor],
    edits: Mapping[str, EditSpec],
    figures: Mapping[str, Mapping[str, Any]],
    name: str | None,
    overwrite: bool,
    config: Any = None,
) -> None:
    """The boundary folder, and the model if one is asked for."""
    from e3dge_video.weights.boundaries import write_boundaries
    from e3dge_video.weights.bundle import read_bundle, read_spec
    from e3dge_video.weights.install import check_name, install_with_edits

    if name is not None:
        check_name(name, overwrite=overwrite)
        read_spec(folder)  # a model, not a run
    write_boundaries(out, directions, edits, config or read_spec(folder).generator, figures)
    if name is not None:
        target, _ = install_with_edits(
            read_bundle(folder, discriminator=True), name, directions, edits, origin=figures, overwrite=overwrite
        )
        click.echo(f"wrote {target}")


def _against(texts: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in texts:
        name, sign, others = text.partition("=")
        if not name or not sign or not others or name in others.split(","):
            raise ConfigError(f"--against {text}: write an attribute and others, as smile=age,glasses")
        found.setdefault(name, []).extend(others.split(","))
    return found


def _layers(text: str | None, rows: int) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last) < rows):
        raise ConfigError(f"--layers {text}: write the first and the last of this generator's 0-{rows - 1}, as 0-7")
    return int(first), int(last) + 1
