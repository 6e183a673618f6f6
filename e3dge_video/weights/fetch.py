"""Download of a published checkpoint: goes on where it stopped, and the file appears only when it is the right one."""

from __future__ import annotations

import hashlib
import http.client
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from e3dge_video import __version__
from e3dge_video.config.paths import cache_root
from e3dge_video.errors import ModelError
from e3dge_video.faces.landmarks.model_files import torch_hub_checkpoints
from e3dge_video.weights.public_files import PublicFile

_BLOCK = 1 << 20
_TIMEOUT_S = 30
_SPARE = 64 << 20  # bytes left free on the disk
_AGAIN = "run the same command again, it goes on where it stopped"

#: Called with the bytes there are and their number in all, if that is known.
Report = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Fetched:
    """A checkpoint that was downloaded.

    Attributes:
        path: Where it lies.
        sha256: Its SHA-256.
        verified: What it was compared with, in words.
    """

    path: Path
    sha256: str
    verified: str


def destination(entry: PublicFile) -> Path:
    """Where a checkpoint is downloaded to."""
    folder = torch_hub_checkpoints() if entry.folder == "torch_hub" else cache_root() / "downloads"
    return folder / entry.file


def fetch(entry: PublicFile, report: Report = lambda done, size: None) -> Fetched:
    """Download a checkpoint to its `destination`, or find it there; compare it with the published size and hash.

    A download that was interrupted goes on where it stopped.

    Raises:
        ModelError: No address, no network, no room, or what was downloaded is not the published file.
    """
    if entry.url is None:
        raise ModelError(
            f"{entry.name}: no address that gives the file itself is publicly known, nor its size or hash; download "
            f"{entry.file} from {entry.page} and give it to `e3dge-video models import`"
        )
    target = destination(entry)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            partial = target.with_name(target.name + ".part")
            _download(entry, direct_address(entry.url), partial, report)
            _compare(entry, partial)
            partial.replace(target)
        digests = _compare(entry, target)
    except OSError as error:
        raise ModelError(f"{target}: cannot be written ({error}); check the folder and its disk") from error
    return Fetched(target, digests["sha256"], _compared(entry))


def direct_address(url: str) -> str:
    """The address that gives the file itself; Google Drive puts a question about large files before it."""
    match = re.fullmatch(r"https://drive\.google\.com/uc\?id=([\w-]+)", url)
    if match is None:
        return url
    return f"https://drive.usercontent.google.com/download?id={match[1]}&export=download&confirm=t"


def _compared(entry: PublicFile) -> str:
    """What a download was compared with, in words."""
    facts = {"size": entry.bytes, "MD5": entry.md5, f"SHA-256 prefix {entry.sha256_prefix}": entry.sha256_prefix}
    known = [name for name, value in facts.items() if value is not None]
    return " and ".join(known) + " as published" if known else "nothing: neither size nor hash is publicly known"


def _download(entry: PublicFile, url: str, partial: Path, report: Report) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    if entry.bytes is not None and have >= entry.bytes:
        return  # all there: the comparison says whether it is the right file
    free = shutil.disk_usage(partial.parent).free
    if entry.bytes is not None and entry.bytes - have + _SPARE > free:
        raise ModelError(f"{partial.parent}: {entry.file} needs {(entry.bytes - have) / 1e6:.0f} MB; make room there")
    headers = {"User-Agent": f"e3dge-video/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S) as response:
            if response.headers.get_content_type() == "text/html":
                raise ModelError(
                    f"{url}: answers with a web page instead of the file (a question, or too many downloads today); "
                    f"open it in a browser and save {entry.file} as {partial.with_suffix('')}"
                )
            resumed = response.status == 206 and _begins_at(response.headers.get("Content-Range"), have)
            _receive(entry, response, partial, have if resumed else 0, report)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is longer than what is offered
            partial.unlink(missing_ok=True)
            raise ModelError(
                f"{url}: offers less than what was downloaded before; that is deleted, try again"
            ) from error
        raise ModelError(
            f"{url}: the server refuses ({error.code} {error.reason}); try later or in a browser"
        ) from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise ModelError(f"{url}: cannot be reached ({reason}); check the network and {_AGAIN}") from error


def _receive(entry: PublicFile, response: http.client.HTTPResponse, partial: Path, have: int, report: Report) -> None:
    """Append to what is there, or begin anew; never take more than the published size."""
    offered = None if response.length is None else have + response.length
    if entry.bytes is not None and offered is not None and offered != entry.bytes:
        raise ModelError(
            f"{entry.url}: offers {offered} bytes, but the published file has {entry.bytes}; it was changed there"
        )
    size = offered if entry.bytes is None else entry.bytes
    done, broken = have, False
    with partial.open("ab" if have else "wb") as file:
        while size is None or done < size:
            try:
                block = response.read(_BLOCK if size is None else min(_BLOCK, size - done))
            except (OSError, http.client.HTTPException):
                broken = True
                break
            if not block:
                break
            file.write(block)
            done += len(block)
            report(done, size)
    if broken or (size is not None and done < size):
        raise ModelError(f"{entry.url}: the connection ended after {done} of {size or 'some'} bytes; {_AGAIN}")


def _begins_at(content_range: str | None, have: int) -> bool:
    return content_range is not None and content_range.startswith(f"bytes {have}-")


def _compare(entry: PublicFile, path: Path) -> dict[str, str]:
    """SHA-256 and MD5 of a file that is as published; one that is not is deleted."""
    size = path.stat().st_size
    digests = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            for digest in digests.values():
                digest.update(block)
    found = {name: digest.hexdigest() for name, digest in digests.items()}
    wrong = None
    if entry.bytes is not None and size != entry.bytes:
        wrong = f"{size} bytes instead of {entry.bytes}"
    elif entry.md5 is not None and found["md5"] != entry.md5:
        wrong = f"MD5 {found['md5']} instead of {entry.md5}"
    elif not found["sha256"].startswith(entry.sha256_prefix or ""):
        wrong = f"SHA-256 {found['sha256'][:12]}… instead of {entry.sha256_prefix}…"
    if wrong:
        path.unlink()
        raise ModelError(f"{path}: is not the published file ({wrong}) and was deleted; run the same command again")
    return found
