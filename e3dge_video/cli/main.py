"""The command line: one group, one file per verb; a user's mistake is one line and a non-zero exit."""

from __future__ import annotations

import logging
import os
import sys

import click

from e3dge_video import __version__
from e3dge_video.errors import E3DGEError

#: verb → (module below e3dge_video.cli, function). Modules load when their verb is called, so that --help is instant.
_VERBS = {
    "run": ("run", "run_command"),
    "sample": ("sample", "sample_command"),
    "doctor": ("doctor", "doctor_command"),
    "models": ("models", "models_group"),
    "train": ("train", "train_group"),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        from importlib import import_module

        module, function = _VERBS[cmd_name]
        command: click.Command = getattr(import_module(f"e3dge_video.cli.{module}"), function)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="e3dge-video")
@click.option("-v", "--verbose", is_flag=True, help="Say more about what is going on.")
def _group(verbose: bool) -> None:
    """Turn a talking-head video into a 4D portrait: new views, edits and depth."""
    handler = _AboveBars()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s" if verbose else "%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if verbose:
        logging.getLogger("e3dge_video").setLevel(logging.INFO)
    # Warnings of Python's libraries are for developers.
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.WARNING if verbose else logging.ERROR)


class _AboveBars(logging.Handler):
    """Writes to standard error, above tqdm's bars if there are any."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            if "tqdm" in sys.modules:
                sys.modules["tqdm"].tqdm.write(text, file=sys.stderr)
            else:
                click.echo(text, err=True)
        except Exception:
            self.handleError(record)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `e3dge-video`. Exit codes: 0 done, 1 user error, 3 some videos failed, 130 interrupted."""
    # Read once, when torch is imported: see `pipelines/core/threads.py`.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = _group.main(args=arguments, prog_name="e3dge-video", standalone_mode=False)
    except E3DGEError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except click.exceptions.Abort as stop:
        # Click turns KeyboardInterrupt into Abort; a pipeline's own carries how to go on.
        click.echo(str(stop.__cause__ or "") or "stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        # Click's own exit code for wrong usage is 2; this program has one code for all user errors.
        context = getattr(error, "ctx", None)
        hint = f"; see {context.command_path} --help" if context else ""
        click.echo(f"error: {error.format_message()}{hint}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
