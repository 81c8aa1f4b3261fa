"""A web server as image publishers have one: ranges, times; and one whose wire is bad."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from imagefactory.devcloud import configuration


@dataclass
class Publisher:
    """A directory that is served.

    Attributes:
        directory: What it holds.
        url: Where.
        cut_after: Bytes of a body after which the next connections break, one by one.
        refusals: Statuses that the next requests get instead.
        asked: Paths that were asked for, with the range if one was named.
        timeless: Send no Last-Modified.
        resumed: Set once somebody wants the rest of a file.
    """

    directory: Path
    url: str = ""
    cut_after: list[int] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    timeless: bool = False
    resumed: threading.Event = field(default_factory=threading.Event)

    def add(self, name: str, content: bytes) -> str:
        """Publish a file; return its address."""
        (self.directory / name).write_bytes(content)
        return f"{self.url}/{name}"


@contextlib.contextmanager
def publisher(directory: Path, *, tls: bool = False) -> Iterator[Publisher]:
    """Serve a directory on the loopback; with TLS, ``tls.crt`` beside it is to be trusted."""
    directory.mkdir(exist_ok=True)
    served = Publisher(directory)

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *words: Any) -> None:  # noqa: A002
            pass

        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            served.asked.append((self.path, wanted))
            if wanted:
                served.resumed.set()
            if served.refusals:
                self.send_error(served.refusals.pop(0))
                return
            if self.path.startswith("/moved/"):
                self.send_response(302)
                self.send_header("Location", f"{served.url}/{self.path.removeprefix('/moved/')}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            file = served.directory / self.path.split("?")[0].lstrip("/")
            if not file.is_file():
                self.send_error(404)
                return
            content = file.read_bytes()
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(content) - start))
            if not served.timeless:
                self.send_header("Last-Modified", self.date_time_string(file.stat().st_mtime))
            self.end_headers()
            body = content[start:]
            if served.cut_after:
                self.wfile.write(body[: served.cut_after.pop(0)])
                self.wfile.flush()
                self.close_connection = True
                return
            with contextlib.suppress(OSError):  # who asked has gone
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        configuration._certify(directory.parent)
        context.load_cert_chain(directory.parent / "tls.crt", directory.parent / "tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    served.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
