"""A local web server that offers one file, well or badly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Offer:
    """What the server answers, and what it was asked.

    Attributes:
        data: The file.
        stop_after: Close the connection after so many bytes of an answer.
        ranges: Whether it can begin in the middle.
        content_type: What it says it is.
        says_length: Whether it says how long the answer is.
        asked: The Range header of each request.
    """

    data: bytes
    stop_after: int | None = None
    ranges: bool = True
    content_type: str = "application/octet-stream"
    says_length: bool = True
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(offer: Offer) -> Iterator[Offer]:
    """Serve the offer on a free port of this machine; `offer.url` is its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            offer.asked.append(asked)
            begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and offer.ranges else 0
            if begin and begin >= len(offer.data):
                self.send_error(416)
                return
            body = offer.data[begin:]
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(offer.data) - 1}/{len(offer.data)}")
            self.send_header("Content-Type", offer.content_type)
            if offer.says_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if offer.stop_after is None else body[: offer.stop_after])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    offer.url = f"http://127.0.0.1:{server.server_port}/file"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield offer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
