"""The output folder: written beside its place under another name, and given its own when whole.

`NAME.partial/work` holds the finished chunks of a run, `NAME.partial/result` the files that become the folder NAME.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from e3dge_video.errors import InputError

#: A folder with this file was written by this program and may be replaced.
MARKER = "portrait.json"


class OutputFolder:
    """Where one run's result goes.

    Args:
        path: The folder to be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.partial = self.path.with_name(self.path.name + ".partial") if self.path.name else self.path
        self.work = self.partial / "work"
        self.result = self.partial / "result"
        self._made: list[Path] = []

    def check(self, video: Path, *, overwrite: bool) -> None:
        """Raise `InputError` if the result may not go here: nothing is touched yet.

        Args:
            video: The clip that is read; it must not lie in a folder that is replaced.
            overwrite: Whether an older result may be replaced.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise InputError(f"{self.path}: is a file, but a folder is to be written; choose another --out")
        if not overwrite:
            raise InputError(f"{self.path}: is already there; choose another --out, or give --overwrite to replace it")
        if not (self.path / MARKER).is_file() and any(self.path.iterdir()):
            raise InputError(
                f"{self.path}: holds other things than a result of this program, and is not replaced; choose another "
                "--out, or remove it yourself"
            )
        if video.resolve().is_relative_to(self.path):
            raise InputError(f"{video}: lies in the folder that --overwrite would replace; choose another --out")

    def prepare(self) -> None:
        """Make the working folder, or find the one that a stopped run left.

        Raises:
            InputError: It cannot be written.
        """
        missing = [self.partial, *self.partial.parents]
        self._made = [folder for folder in missing if not folder.exists()]
        try:
            self.partial.mkdir(parents=True, exist_ok=True)
            if not os.access(self.partial, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            self._remove_parents()
            raise InputError(f"{self.partial}: cannot be written ({error.strerror}); choose another --out") from error

    def publish(self) -> None:
        """Give the finished folder its name; what stood there is replaced only now."""
        old = self.path.with_name(self.path.name + ".replaced")
        shutil.rmtree(old, ignore_errors=True)
        if self.path.exists():
            self.path.rename(old)
        self.result.rename(self.path)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(self.partial, ignore_errors=True)

    def discard(self) -> None:
        """Remove the working folder, and the folders around it that `prepare` made."""
        shutil.rmtree(self.partial, ignore_errors=True)
        self._remove_parents()

    def _remove_parents(self) -> None:
        for folder in self._made:  # inner ones first
            with contextlib.suppress(OSError):  # gone, or somebody else put something there
                folder.rmdir()
