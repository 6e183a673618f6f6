"""`e3dge-video models`: what is installed, and what each model is."""

from __future__ import annotations

import json

import click

from e3dge_video.errors import ModelError


@click.group("models")
def models_group() -> None:
    """List model bundles and show what they are."""


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
    backbone = spec.generator.backbone
    click.echo(f"{spec.name}  ({folder})")
    click.echo(f"  licence      {spec.licence}")
    click.echo(
        f"  backbone     {spec.backbone}, pictures {spec.resolution} px, volume rendering {spec.neural_resolution} px"
    )
    click.echo(f"  planes       3 × {backbone.plane_channels} × {backbone.plane_resolution}², crop {spec.crop}")
    click.echo("  edits")
    for edit, use in sorted(spec.edits.items()):
        click.echo(f"    {edit:<14} {use.limits[0]:g} … {use.limits[1]:g}   1 = {use.unit}")
    click.echo("  files")
    for file, digest in spec.files.items():
        size = (folder / file).stat().st_size / 1e6
        values = tensor_count(folder / file)[1] / 1e6
        click.echo(f"    {file:<24} {size:6.1f} MB  {values:6.2f} M values  sha256 {digest[:12]}…")
    click.echo("  provenance")
    for line in json.dumps(spec.provenance, indent=2).splitlines()[1:-1]:
        click.echo("  " + line)
