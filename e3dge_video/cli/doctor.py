"""`e3dge-video doctor`: what this machine can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from e3dge_video.cli.machine import Check


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings for programs.")
@click.option("--ray", "start_ray", is_flag=True, help="Start Ray for real, or join RAY_ADDRESS (some seconds).")
def doctor_command(as_json: bool, start_ray: bool) -> None:
    """Say what this machine can do: devices, codecs, landmark back ends, models, Ray.

    Ends with 0 if `e3dge-video run` can work here, with 1 and what to install if it cannot.
    """
    import json
    from dataclasses import asdict

    from e3dge_video.cli.machine import examine, problems
    from e3dge_video.errors import BackendError

    checks = examine(start_ray=start_ray)
    faults = problems(checks)
    if as_json:
        report = {"ready": not faults, "problems": faults, "checks": [asdict(check) for check in checks]}
        click.echo(json.dumps(report, indent=1))
    else:
        for line in _lines(checks):
            click.echo(line)
    if faults:
        raise BackendError("`e3dge-video run` cannot work here: " + " | ".join(faults))
    if not as_json:
        click.echo("\neverything that `e3dge-video run` needs is here")


def _lines(checks: list[Check]) -> list[str]:
    """The report: groups, and within them what works, what is missing and what to do about it."""
    lines = []
    group = ""
    width = max(len(check.name) for check in checks)
    for check in checks:
        if check.group != group:
            group = check.group
            lines.append(f"{group}")
        mark = "ok" if check.ok else "!!" if check.required else "--"
        advice = f"; {check.advice}" if check.advice and not check.ok else ""
        lines.append(f"  {mark}  {check.name:<{width}}  {check.detail}{advice}")
    return lines
