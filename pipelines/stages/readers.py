"""Video readers that a worker keeps open between chunks, so that the next chunk needs no seek."""

from __future__ import annotations

from pathlib import Path

from e3dge_video.io.index import FrameIndex
from e3dge_video.io.reader import VideoReader
from e3dge_video.pipelines.options import ClipParams

_OPEN_AT_MOST = 4


class Readers:
    """One reader per video, the least recently used closed first."""

    def __init__(self) -> None:
        self._readers: dict[Path, VideoReader] = {}

    def of(self, clip: ClipParams) -> VideoReader:
        """The clip's reader."""
        reader = self._readers.pop(clip.video, None)
        if reader is None:
            reader = VideoReader(clip.video, FrameIndex.from_bytes(clip.index.read_bytes()))
            while len(self._readers) >= _OPEN_AT_MOST:
                self._readers.pop(next(iter(self._readers))).close()
        self._readers[clip.video] = reader
        return reader

    def close(self) -> None:
        """Close all files."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
