"""`e3dge-video models`: what is installed, what each model is, and how official checkpoints become models."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from e3dge_video.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from e3dge_video.weights.bundle import BundleSpec

_SHOWN = 3  # names shown of a longer list


@click.group("models")
def models_group() -> None:
    """List model bundles, show and verify them, import and fetch official checkpoints."""


@models_group.command("list")
def list_models() -> None:
    """List installed bundles."""
    from e3dge_video.weights.bundle import read_spec
    from e3dge_video.weights.catalog import bundle_roots, installed_bundles

    folders = list(installed_bundles())
    for folder in folders:
        try:
            spec = read_spec(folder)
        except ModelError as error:
            click.echo(f"note: {error}", err=True)
            continue
        edits = ", ".join(sorted(spec.edits)) or "none"
        click.echo(f"{spec.name:<16} {spec.backbone}, {spec.resolution} px   licence: {spec.licence}   edits: {edits}")
    if not folders:
        click.echo("no bundles in " + " or ".join(str(root) for root in bundle_roots()))


@models_group.command("info")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print model.json itself.")
def info(name: str, as_json: bool) -> None:
    """Show a bundle's configuration, licence, provenance and figures. NAME is a name or a folder."""
    from e3dge_video.config.load import to_mapping
    from e3dge_video.weights.bundle import read_spec, tensor_count
    from e3dge_video.weights.catalog import find_bundle

    folder = find_bundle(name)
    spec = read_spec(folder)
    if as_json:
        click.echo(json.dumps(to_mapping(spec), indent=1))
        return
    if missing := [file for file in spec.files if not (folder / file).is_file()]:
        raise ModelError(f"{folder / missing[0]}: missing; the bundle {spec.name} is incomplete, install it again")
    click.echo(f"{spec.name}  ({folder})")
    click.echo(f"  licence      {spec.licence}")
    for title, text in _configuration(spec).items():
        click.echo(f"  {title:<12} {text}")
    click.echo("  edits" if spec.edits else "  edits        none")
    for edit, use in sorted(spec.edits.items()):
        layers = "" if use.layers is None else f"   (layers {use.layers[0]}-{use.layers[1] - 1} only)"
        click.echo(f"    {edit:<14} {use.limits[0]:g} … {use.limits[1]:g}   1 = {use.unit}{layers}")
    click.echo("  files")
    for file, digest in spec.files.items():
        size = (folder / file).stat().st_size / 1e6
        values = tensor_count(folder / file)[1] / 1e6
        click.echo(f"    {file:<24} {size:6.1f} MB  {values:6.2f} M values  sha256 {digest[:12]}…")
    click.echo("  provenance   (whole: --json)")
    for line in json.dumps(_shortened(spec.provenance), indent=2, ensure_ascii=False).splitlines()[1:-1]:
        click.echo("  " + line)


@models_group.command("verify")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.png", help="Save the check image here.")
def verify(name: str, out: Path | None) -> None:
    """Compare a bundle's files with their SHA-256 and render its check image. NAME is a name or a folder.

    The check image is a fixed code from the frontal camera; it must be the one that was recorded when the bundle was
    made. A file that was changed ends with exit code 1.
    """
    from e3dge_video.inversion.verify import verify_bundle
    from e3dge_video.io.images import to_array, write_png

    if out is not None and out.suffix.lower() != ".png":
        raise ConfigError(f"--out {out}: the check image is written as .png; name such a file")
    done = verify_bundle(name)
    click.echo(f"{done.spec.name}: every file is as it was when the bundle was made ({', '.join(done.spec.files)})")
    if done.difference is None:
        click.echo("check image rendered; this bundle has no recorded figures to compare it with")
    else:
        click.echo(f"check image is the recorded one (largest difference of its fields {done.difference:.1g})")
    if out is not None:
        write_png(out, to_array(done.image))
        click.echo(f"wrote {out}")


@models_group.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.option("--as", "name", required=True, metavar="NAME", help="Name of the model.")
@click.option("--overwrite", is_flag=True, help="Replace an imported model of this name.")
@click.option(
    "--discriminator",
    is_flag=True,
    help="Keep the discriminator, too (official ones: 116 to 126 MB); only adversarial training uses it.",
)
def import_files(files: tuple[Path, ...], name: str, overwrite: bool, discriminator: bool) -> None:
    """Make a model of official checkpoints. Nothing in the files is executed.

    FILE is an EG3D network pickle, or its tensors in a torch or safetensors file with a JSON file of its options beside
    it; or a StyleSDF checkpoint; or an E3DGE runner's checkpoint together with its StyleSDF generator and the volume
    renderer. Further ones may be folders of editing boundaries for this generator: ATTRIBUTE/boundary.npy, for StyleSDF
    renderer_ATTRIBUTE/boundary.npy and decoder_ATTRIBUTE/boundary.npy.

    \b
    e3dge-video models import ffhq512-128.pkl --as ffhq
    e3dge-video models import ffhq512-128.pkl boundaries/ --as ffhq --overwrite
    e3dge-video models import ffhq1024x1024.pt --as stylesdf
    e3dge-video models import E3DGE_Full_Runner.pt ffhq1024x1024.pt ffhq_vol_renderer.pt --as e3dge
    """
    from e3dge_video.weights.bundle import DISCRIMINATOR_FILE
    from e3dge_video.weights.importing import import_model

    done = import_model(files, name, overwrite=overwrite, discriminator=discriminator)
    spec = done.spec
    edits = ", ".join(sorted(spec.edits)) or "none"
    click.echo(f"imported {name}: {done.project}, pictures {spec.resolution} px, edits: {edits}")
    click.echo(f"{done.used} tensors taken over, {done.ignored} left out (why: e3dge-video models info {name})")
    if spec.discriminator is not None:
        size = (done.folder / DISCRIMINATOR_FILE).stat().st_size / 1e6
        click.echo(f"discriminator: {spec.discriminator.describe()} ({size:.1f} MB)")
    click.echo(f"licence: {spec.licence}")
    click.echo(f"wrote {done.folder}")


@models_group.command("fetch")
@click.argument("name", required=False)
@click.option("--accept-licence", is_flag=True, help="Accept the licence without being asked; for scripts.")
def fetch_file(name: str | None, accept_licence: bool) -> None:
    """Download a published checkpoint, NAME; without NAME, list those that are known.

    The licence is shown first. A download that was interrupted goes on where it stopped; size and hash are compared
    with the published ones, where there are any.
    """
    from e3dge_video.weights.fetch import destination, fetch
    from e3dge_video.weights.public_files import public_file, public_files

    if name is None:
        for entry in public_files().values():
            size = f"{entry.bytes / 1e6:.0f} MB" if entry.bytes else "size not known"
            click.echo(f"{entry.name:<26} {entry.what}; {size}; {entry.licence}")
        return
    entry = public_file(name)
    click.echo(f"{entry.name}: {entry.what} ({entry.file})")
    click.echo(f"licence: {entry.licence}; read it: {entry.terms}")
    if entry.url is not None and not accept_licence:
        if not sys.stdin.isatty():
            raise ConfigError(f"{name}: read the licence and accept it with --accept-licence")
        click.confirm("Do you accept this licence?", abort=True)
    with _Bar(entry.file) as bar:
        done = fetch(entry, bar.show)
    click.echo(f"wrote {done.path}")
    click.echo(f"compared: {done.verified}; SHA-256 {done.sha256}")
    if entry.importable:
        beside = [(other, destination(public_file(other))) for other in entry.beside]
        for other, path in beside:
            if not path.exists():
                click.echo(f"needed beside it: e3dge-video models fetch {other}")
        files = shlex.join(map(str, (done.path, *(path for _, path in beside))))
        click.echo(f"next: e3dge-video models import {files} --as {shlex.quote(name)}")


class _Bar:
    """A bar on a terminal; silent elsewhere."""

    def __init__(self, title: str) -> None:
        from tqdm import tqdm

        self.bar = tqdm(desc=title, unit="B", unit_scale=True, disable=None, leave=False)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def show(self, done: int, size: int | None) -> None:
        self.bar.total = size
        self.bar.update(done - self.bar.n)


def _configuration(spec: BundleSpec) -> dict[str, str]:
    """What the networks are: titles and texts."""
    encoders = "none: the generator alone, for use from Python"
    if spec.hybrid is not None:
        encoders = spec.hybrid.describe()
    elif spec.psp is not None:
        encoders = "the paper's E0 and E_ξ, taught by this generator"
    elif spec.encoder is not None:
        encoders = "E0, E_ξ, 3D landmarks, matte"
    if spec.local is not None:
        encoders += f"; a local branch ({spec.local.mode})"
    sizes = f"pictures {spec.resolution} px, volume rendering {spec.neural_resolution} px"
    return {
        "backbone": f"{spec.backbone}, {sizes}, crop {spec.crop}",
        **spec.generator.describe(),
        "encoders": encoders,
        "local branch": "none of its own"
        if spec.local is None
        else f"{spec.local.mode}, {spec.local.channels} channels",
        "training": "no discriminator"
        if spec.discriminator is None
        else f"discriminator: {spec.discriminator.describe()}",
        "toon": "none" if spec.toon is None else f"{spec.toon.style}; licence {spec.toon.licence}",
    }


def _shortened(value: Any) -> Any:
    """Long lists of names by their first ones and their number."""
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list) and len(value) > _SHOWN + 1 and all(isinstance(item, str) for item in value):
        return [*value[:_SHOWN], f"… {len(value) - _SHOWN} more"]
    return [_shortened(item) for item in value] if isinstance(value, list) else value
