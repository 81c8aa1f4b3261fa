"""The metadata service of the test's private network, with a record of who asked for what."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from imagefactory.boot.instance import InstanceData, lookup

Answer = Callable[[InstanceData, str], tuple[bytes, str] | None]
"""How a request is answered: content and type for an instance and a path."""

ADDRESS = ("169.254.169.254", 80)


@dataclass
class Requests:
    """The requests that guests made, in order; also written to a file as they come."""

    log: Path
    began: float = field(default_factory=time.monotonic)
    paths: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, method: str, path: str, status: int, agent: str) -> None:
        """Note one request."""
        with self._lock, self.log.open("a", encoding="utf-8") as stream:
            self.paths.append(path)
            seconds = time.monotonic() - self.began
            stream.write(f"{seconds:8.2f} {method} {path} {status} {agent}\n")


class _Handler(BaseHTTPRequestHandler):
    instance: ClassVar[InstanceData]
    requests: ClassVar[Requests]
    answers: ClassVar[tuple[Answer]]  # in a tuple, or it would be a method
    protocol_version = "HTTP/1.1"
    timeout = 30.0

    def do_GET(self) -> None:
        answer = self.answers[0](self.instance, self.path.split("?", 1)[0])
        if answer is None:
            self._answer(404, b"404 Not Found\n", "text/plain")
        else:
            self._answer(200, *answer)

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self) -> None:
        # IMDSv2 tokens are Amazon's; nova answers everything but GET alike.
        self._answer(404, b"404 Not Found\n", "text/plain")

    def _answer(self, status: int, content: bytes, kind: str) -> None:
        agent = self.headers.get("User-Agent", "-")
        self.requests.record(self.command, self.path, status, agent)
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=UTF-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet: ``Requests`` is the log."""


@contextlib.contextmanager
def serve(
    instance: InstanceData,
    log: Path,
    address: tuple[str, int] = ADDRESS,
    answer: Answer = lookup,
) -> Iterator[tuple[Requests, int]]:
    """Serve an instance's metadata while the block runs; hands out the record and the port."""
    requests = Requests(log)
    log.touch()
    facts = {"instance": instance, "requests": requests, "answers": (answer,)}
    handler = type("Handler", (_Handler,), facts)
    with ThreadingHTTPServer(address, handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield requests, int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()
