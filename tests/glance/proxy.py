"""A bad wire between client and Glance: it flips a byte, or breaks, once enough has passed."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

PATIENCE = 30.0

Damage = Callable[[bytes], bytes | None]
"""What becomes of the piece that is damaged; None breaks the connection."""


def flip(piece: bytes) -> bytes:
    """Change one bit."""
    return bytes([piece[0] ^ 1]) + piece[1:]


def cut(_piece: bytes) -> None:
    """Break the connection."""


@contextlib.contextmanager
def bad_wire(
    endpoint: str, damage: Damage, *, after: int, times: int | None = None
) -> Iterator[str]:
    """Forward connections; the piece that passes byte ``after`` of each is damaged.

    Requests without an image's data are far too short to reach it. With ``times``, only so many
    connections are bad.
    """
    left = iter(range(times)) if times is not None else None

    def damage_while_bad(piece: bytes) -> bytes | None:
        return damage(piece) if left is None or next(left, None) is not None else piece

    target = urlsplit(endpoint)
    assert target.hostname is not None
    assert target.port is not None
    address = (target.hostname, target.port)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(
            target=_accept, args=(listener, address, damage_while_bad, after), daemon=True
        ).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def _accept(listener: socket.socket, address: tuple[str, int], damage: Damage, after: int) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(address, timeout=PATIENCE)
            client.settimeout(PATIENCE)
            for source, sink, limit in ((client, server, after), (server, client, None)):
                threading.Thread(
                    target=_pump, args=(source, sink, damage, limit), daemon=True
                ).start()


def _pump(source: socket.socket, sink: socket.socket, damage: Damage, after: int | None) -> None:
    passed = 0
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            reached = after is not None and passed <= after < passed + len(piece)
            passed += len(piece)
            forwarded = damage(piece) if reached else piece
            if forwarded is None:
                break
            sink.sendall(forwarded)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
