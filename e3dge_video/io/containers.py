"""Opens video files and turns FFmpeg's error numbers into one line a user can act on."""

from __future__ import annotations

from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from e3dge_video.errors import InputError

# FFmpeg "opens" these as one-frame videos or as teletext art.
_STILL_FORMATS = {"image2"}
_TEXT_FORMATS = {"tty", "srt", "ass", "webvtt", "microdvd", "lrc", "txt"}


def open_video(path: Path, threads: int = 1) -> tuple[InputContainer, VideoStream]:
    """Open a file for reading and choose its video stream; the caller closes the container.

    Raises:
        InputError: The file is missing, is not a video, has no picture, or no decoder for it.
    """
    _check_file(path)
    container = None
    try:
        # "file:" keeps FFmpeg from reading a colon in the name as a protocol.
        container = av.open(f"file:{path}", "r", metadata_errors="replace")
        stream = _choose_stream(path, container)
        # PyAV's default, a thread per core, makes what is shown of damaged pictures depend on the machine.
        stream.codec_context.thread_count = threads
        if threads > 1:
            stream.codec_context.thread_type = "AUTO"
        return container, stream
    except (FFmpegError, OSError, EOFError) as error:
        _close(container)
        raise InputError(_explain(path, error)) from error
    except InputError:
        _close(container)
        raise


def _check_file(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, a video file was expected; give a file, or use the batch command")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if empty:
        raise InputError(f"{path}: the file is empty (0 bytes); copy or download it again")


def _choose_stream(path: Path, container: InputContainer) -> VideoStream:
    kind = container.format.name
    if kind in _TEXT_FORMATS:
        raise InputError(f"{path}: is a text file, not a video; give a video file such as mp4, mov, mkv or webm")
    if kind in _STILL_FORMATS or kind.endswith("_pipe"):
        raise InputError(f"{path}: is a still picture, not a video; use the image command for it")
    pictures = [s for s in container.streams.video if not _is_cover(s)]
    if not pictures:
        sounds = ", ".join(s.codec_context.name for s in container.streams.audio if s.codec_context) or "no"
        also = " and a cover picture" if container.streams.video else ""
        raise InputError(f"{path}: has {sounds} sound{also} but no video; give a file with a picture track")
    readable = [s for s in pictures if s.codec_context is not None]
    if not readable:
        raise InputError(f"{path}: its video is in a format this FFmpeg build cannot decode; convert it to H.264 first")
    best = container.streams.best("video")
    return best if best in readable else readable[0]


def _is_cover(stream: VideoStream) -> bool:
    disposition = stream.disposition
    return bool(disposition & type(disposition).attached_pic)


def _explain(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        head = file.read(4096)
    if _looks_like_text(head):
        return f"{path}: is a text file, not a video; give a video file such as mp4, mov, mkv or webm"
    if head[4:8] == b"ftyp" and not _has_top_level_box(path, b"moov"):
        return (
            f"{path}: the file is cut off: its index (the mp4 'moov' part, written last) is missing; "
            "copy or download it again"
        )
    reason = getattr(error, "strerror", None) or str(error)
    return f"{path}: is not a video that can be opened ({reason}); check the file, or convert it to mp4 first"


def _looks_like_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not just a character cut in two at the end
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\r\n\t\f" for character in text)


def _has_top_level_box(path: Path, name: bytes) -> bool:
    """Walk the outermost boxes of an mp4 file."""
    end = path.stat().st_size
    position = 0
    with path.open("rb") as file:
        while position + 8 <= end:
            file.seek(position)
            header = file.read(16)
            size = int.from_bytes(header[:4], "big")
            if header[4:8] == name:
                return True
            if size == 1:
                size = int.from_bytes(header[8:16], "big")
            if size < 8:  # 0: the box reaches to the end of the file
                return False
            position += size
    return False


def _close(container: InputContainer | None) -> None:
    if container is not None:
        container.close()
