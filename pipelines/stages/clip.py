"""The clip as workers see it: which video and frames, its frame index, readers that stay open between chunks.

Nothing here or in the stages `scan`, `prep` and `encode` imports torch: their workers start in a fraction of a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from e3dge_video.io.index import FrameIndex
from e3dge_video.io.reader import VideoReader

#: Chunks begin at multiples of this many frames, because the blocks of the face scan, the model's batches and the
#: GOPs of the segments do: so no result depends on the chunk size.
CHUNK_GRID = 16

_OPEN_AT_MOST = 4


@dataclass(frozen=True)
class ClipParams:
    """What every stage of a job knows of its clip.

    Attributes:
        video: The video file, absolute.
        index: File with its frame index.
        first: Number of the clip's first frame in the video; chunks count from there.
        frames: Frames of the clip.
    """

    video: Path
    index: Path
    first: int
    frames: int

    def read_index(self) -> FrameIndex:
        """The video's frames."""
        return FrameIndex.from_bytes(self.index.read_bytes())


class Readers:
    """One open reader per video, the least recently used closed first, so that the next chunk needs no seek."""

    def __init__(self) -> None:
        self._readers: dict[ClipParams, VideoReader] = {}

    def of(self, clip: ClipParams) -> VideoReader:
        """The clip's reader."""
        reader = self._readers.pop(clip, None)
        if reader is None:
            reader = VideoReader(clip.video, clip.read_index())
            while len(self._readers) >= _OPEN_AT_MOST:
                self._readers.pop(next(iter(self._readers))).close()
        self._readers[clip] = reader
        return reader

    def close(self) -> None:
        """Close all files."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()


class Indexes:
    """The frame index that a worker read last."""

    def __init__(self) -> None:
        self._indexes: dict[ClipParams, FrameIndex] = {}

    def of(self, clip: ClipParams) -> FrameIndex:
        """The clip's index."""
        if clip not in self._indexes:
            self._indexes = {clip: clip.read_index()}
        return self._indexes[clip]
