"""A way to Glance on which everything goes wrong now and then, by a seed."""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

STATUSES = (401, 404, 409, 413, 415, 429, 500, 502, 503)
"""What is answered in Glance's place."""

_PIECE = 65536
_BODY_SHARE = 0.4


@dataclass
class Chaos:
    """What goes wrong, and how often it did.

    Attributes:
        seed: Decides; the order of requests is ours, so the same seed does the same.
        share: Of the requests that something happens to.
        stall: Seconds that a stalled request takes.
    """

    seed: int
    share: float
    stall: float
    happened: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self._lock = threading.Lock()

    def next(self, *, has_body: bool) -> str:
        """Say what happens to the next request; empty: nothing."""
        faults = ["refused", "lost", "replaced", "stalled", "slow"]
        faults = ["cut", "flipped", "cut", "flipped", *faults] if has_body else faults
        with self._lock:
            # One request of many has a body: it would hardly ever be hit.
            if self._dice.random() >= (max(self.share, _BODY_SHARE) if has_body else self.share):
                return ""
            fault = self._dice.choice(faults)
            self.happened[fault] += 1
            return fault

    def status(self) -> int:
        """Choose an answer."""
        with self._lock:
            return self._dice.choice(STATUSES)


@contextlib.contextmanager
def chaotic(endpoint: str, chaos: Chaos) -> Iterator[str]:
    """Hand out an endpoint that leads to another one, with faults on the way."""
    target = urlsplit(endpoint)
    assert target.hostname is not None

    class Handler(_Handler):
        pass

    Handler.address = (target.hostname, target.port or 80)
    Handler.chaos = chaos
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    address: tuple[str, int]
    chaos: Chaos

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        fault = self.chaos.next(has_body=length > _PIECE)
        self.close_connection = bool(fault)
        if fault == "refused":
            self._drain(length)
            self._answer(self.chaos.status(), b"chaos")
            return
        if fault in {"stalled", "slow"}:
            time.sleep(self.chaos.stall if fault == "stalled" else 0.05)
        if fault == "stalled":
            return
        with contextlib.suppress(OSError, http.client.HTTPException):
            self._forward(length, fault)

    def _forward(self, length: int, fault: str) -> None:
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        with contextlib.closing(connection):
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in {"connection", "transfer-encoding"}:
                    connection.putheader(name, value)
            connection.endheaders()
            if not self._body(length, fault, connection.send):
                return
            response = connection.getresponse()
            content = response.read()
            if fault == "lost":
                return
            if fault == "replaced":
                self._answer(self.chaos.status(), b"chaos")
                return
            kept = {"content-type", "location", "x-openstack-request-id"}
            headers = {k: v for k, v in response.getheaders() if k.lower() in kept}
            self._answer(response.status, content, headers)

    def _body(self, length: int, fault: str, send: Callable[[bytes], object]) -> bool:
        """Pass a body on; False: it broke off."""
        left = length
        while left and (piece := self.rfile.read(min(_PIECE, left))):
            half = left - len(piece) < length // 2 <= left
            left -= len(piece)
            if fault == "cut" and half:
                return False
            if fault == "flipped" and half:
                piece = bytes([piece[0] ^ 1]) + piece[1:]
            send(piece)
        return not left

    def _drain(self, length: int) -> None:
        while length and (piece := self.rfile.read(min(_PIECE, length))):
            length -= len(piece)

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if status not in {204, 304}:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if status not in {204, 304}:
                self.wfile.write(content)
