"""Download of published checkpoints, from a server on this machine."""

from __future__ import annotations

import hashlib
import re
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from e3dge_video.errors import ModelError
from e3dge_video.weights.fetch import destination, direct_address, fetch
from e3dge_video.weights.public_files import PublicFile, public_file, public_files
from tests.support.checkpoint_server import Offer, serving

DATA = bytes(range(256)) * 9000  # 2.3 MB: more than one block
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("E3DGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


def published(url: str) -> PublicFile:
    return PublicFile(
        "net", "net.pt", "a network", "free", "here", url, bytes=len(DATA), md5=hashlib.md5(DATA).hexdigest()
    )


def refusal(entry: PublicFile) -> str:
    with pytest.raises(ModelError) as caught:
        fetch(entry)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_download(cache: Path) -> None:
    shown: list[tuple[int, int | None]] = []
    with serving(Offer(DATA)) as offer:
        done = fetch(published(offer.url), lambda *numbers: shown.append(numbers))
        assert done.path.read_bytes() == DATA and done.sha256 == SHA256
        assert done.verified == "size and MD5 as published"
        assert shown[-1] == (len(DATA), len(DATA)) and len(shown) > 2
        assert fetch(published(offer.url)) == done and len(offer.asked) == 1  # it is there already
    assert names(cache) == ["net.pt"]


def test_it_goes_on_where_it_stopped(cache: Path) -> None:
    with serving(Offer(DATA, stop_after=1_500_000)) as offer:
        line = refusal(published(offer.url))
        assert f"the connection ended after 1500000 of {len(DATA)} bytes" in line and "goes on where it stopped" in line
        assert names(cache) == ["net.pt.part"]
        offer.stop_after = None
        assert fetch(published(offer.url)).path.read_bytes() == DATA
        assert offer.asked == [None, "bytes=1500000-"]
    assert names(cache) == ["net.pt"]


def test_a_server_that_cannot_begin_in_the_middle(cache: Path) -> None:
    with serving(Offer(DATA, stop_after=1000, ranges=False)) as offer:
        refusal(published(offer.url))
        offer.stop_after = None
        assert fetch(published(offer.url)).path.read_bytes() == DATA


def test_another_file_of_the_same_size(cache: Path) -> None:
    with serving(Offer(DATA[:-1] + b"x")) as offer:
        line = refusal(published(offer.url))
    assert "is not the published file (MD5 " in line and names(cache) == []


def test_a_part_of_another_file(cache: Path) -> None:
    partial = cache / "downloads" / "net.pt.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"something else")
    with serving(Offer(DATA)) as offer:
        assert "is not the published file" in refusal(published(offer.url))
        assert fetch(published(offer.url)).path.read_bytes() == DATA  # the second time it begins anew


def test_a_part_that_is_too_long(cache: Path) -> None:
    partial = cache / "downloads" / "net.pt.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(DATA + b"x")
    with serving(Offer(DATA)) as offer:
        assert f"{len(DATA) + 1} bytes instead of {len(DATA)}" in refusal(published(offer.url))
        assert offer.asked == [] and names(cache) == []
        partial.write_bytes(DATA + b"x")
        assert "offers less than what was downloaded" in refusal(replace(published(offer.url), bytes=None))
    assert names(cache) == []


@pytest.mark.parametrize("data", [DATA[:1000], DATA + b"more"])
def test_another_size_is_not_even_downloaded(cache: Path, data: bytes) -> None:
    with serving(Offer(data)) as offer:
        assert f"offers {len(data)} bytes, but the published file has {len(DATA)}" in refusal(published(offer.url))
    assert names(cache) == []


def test_a_server_without_an_end_is_not_followed(cache: Path) -> None:
    with serving(Offer(DATA + b"more", says_length=False)) as offer:
        assert fetch(published(offer.url)).path.read_bytes() == DATA


def test_a_web_page(cache: Path) -> None:
    with serving(Offer(b"<html>are you sure?", content_type="text/html; charset=utf-8")) as offer:
        line = refusal(published(offer.url))
    assert "answers with a web page" in line and "open it in a browser" in line and names(cache) == []


def test_a_server_that_is_gone_keeps_the_part(cache: Path) -> None:
    with serving(Offer(DATA, stop_after=10)) as offer:
        refusal(published(offer.url))
    assert "cannot be reached" in refusal(published(offer.url))
    assert (cache / "downloads" / "net.pt.part").read_bytes() == DATA[:10]


def test_without_network(cache: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = refusal(published(f"http://127.0.0.1:{port}/net.pt"))
    assert "cannot be reached" in line and "check the network" in line
    assert "cannot be reached" in refusal(published("http://no-such-host.invalid/net.pt"))


def test_without_room(cache: Path) -> None:
    with serving(Offer(DATA)) as offer:
        assert "make room" in refusal(replace(published(offer.url), bytes=10**18))
        assert offer.asked == []


def test_what_is_not_publicly_known_is_said(cache: Path, tmp_path: Path) -> None:
    with serving(Offer(DATA)) as offer:
        blind = replace(published(offer.url), bytes=None, md5=None)
        assert fetch(blind).verified == "nothing: neither size nor hash is publicly known"
        hub = replace(blind, file="hub.pth", sha256_prefix=SHA256[:10], folder="torch_hub")
        done = fetch(hub)
        assert done.path == tmp_path / "torch" / "hub" / "checkpoints" / "hub.pth"
        assert done.verified == f"SHA-256 prefix {SHA256[:10]} as published"
        done.path.unlink()
        assert "SHA-256" in refusal(replace(hub, sha256_prefix="0123456789"))
    line = refusal(public_file("eg3d-ffhq512-128"))
    assert "no address" in line and "nor its size or hash" in line and "catalog.ngc.nvidia.com" in line


def test_the_list_of_published_files() -> None:
    known = public_files()
    assert len(known) == 20 and len({entry.file for entry in known.values()}) == 20
    for entry in known.values():
        assert entry.licence and entry.terms and (entry.url or entry.page or "").startswith("https://")
        if entry.url is not None and entry.importable:
            assert entry.bytes and re.fullmatch(r"[0-9a-f]{32}", entry.md5 or ""), entry.name
            assert direct_address(entry.url).startswith("https://drive.usercontent.google.com/download?id=")
    beside = {name: entry.beside for name, entry in known.items() if entry.beside}
    assert beside == {
        "e3dge-full": ("stylesdf-ffhq1024", "stylesdf-ffhq-renderer"),
        "e3dge-2d-align": ("stylesdf-ffhq1024", "stylesdf-ffhq-renderer"),
        "e3dge-toon-encoder": ("e3dge-toon-generator", "stylesdf-ffhq-renderer"),
    }
    assert destination(public_file("stylesdf-ffhq1024")).name == "ffhq1024x1024.pt"
    assert known["stylesdf-ffhq1024"].bytes == 202570217
    with pytest.raises(ModelError, match=r"nothing: no published checkpoint .* e3dge-full"):
        public_file("nothing")
