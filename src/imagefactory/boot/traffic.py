"""What a guest said on its network, read from QEMU's capture: tells "no network" from "no SSH"."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FILE_HEADER, _RECORD_HEADER, _ETHERNET_HEADER = 24, 16, 14
_IPV4, _ARP = 0x0800, 0x0806
_UDP, _DHCP_SERVER_PORT = 17, 67


@dataclass(frozen=True)
class Traffic:
    """A guest's side of the traffic."""

    frames: int
    dhcp_requests: int
    addresses: frozenset[str]
    """IPv4 addresses from which the guest spoke."""

    def describe(self) -> str:
        """Say in a few words how far the guest's network came."""
        if not self.frames:
            return "the guest never sent a frame: its network card has no driver or is down"
        if self.addresses:
            return f"the guest speaks from {', '.join(sorted(self.addresses))}"
        if self.dhcp_requests:
            return f"the guest asked for an address {self.dhcp_requests} times and took none"
        return "the guest sent frames, but never asked for an address"


def read(path: Path, mac: str) -> Traffic:
    """Read a pcap file as far as it is whole; the emulator may still write to it."""
    wanted = bytes.fromhex(mac.replace(":", ""))
    content = path.read_bytes() if path.exists() else b""
    sent = [frame for frame in _frames(content) if frame[6:12] == wanted]
    sources = {address for frame in sent if (address := _source(frame)) is not None}
    return Traffic(
        frames=len(sent),
        dhcp_requests=sum(_is_dhcp_request(frame) for frame in sent),
        addresses=frozenset(sources - {"0.0.0.0"}),  # noqa: S104
    )


def _frames(content: bytes) -> Iterator[bytes]:
    at = _FILE_HEADER
    while at + _RECORD_HEADER <= len(content):
        # Time, time, captured length, length; in the byte order of the host that wrote it.
        (length,) = struct.unpack_from("=I", content, at + 8)
        frame = content[at + _RECORD_HEADER : at + _RECORD_HEADER + length]
        if len(frame) >= _ETHERNET_HEADER:
            yield frame
        at += _RECORD_HEADER + length


def _source(frame: bytes) -> str | None:
    (kind,) = struct.unpack_from("!H", frame, 12)
    start = {_IPV4: 26, _ARP: 28}.get(kind)
    if start is None or len(frame) < start + 4:
        return None
    return socket.inet_ntoa(frame[start : start + 4])


def _is_dhcp_request(frame: bytes) -> bool:
    if len(frame) < 42 or struct.unpack_from("!H", frame, 12) != (_IPV4,) or frame[23] != _UDP:
        return False
    header = (frame[14] & 0x0F) * 4
    return frame[14 + header + 2 : 14 + header + 4] == struct.pack("!H", _DHCP_SERVER_PORT)
