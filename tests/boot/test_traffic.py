from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from imagefactory.boot.traffic import read

MAC = "fa:16:3e:01:02:03"


def ethernet(kind: int, payload: bytes, source: str = MAC) -> bytes:
    return b"\xff" * 6 + bytes.fromhex(source.replace(":", "")) + struct.pack("!H", kind) + payload


def ipv4(source: str, protocol: int = 6, port: int = 22) -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, protocol, 0)
    header += socket.inet_aton(source) + socket.inet_aton("10.0.2.2")
    return ethernet(0x0800, header + struct.pack("!HHHH", 68, port, 8, 0))


def arp(source: str) -> bytes:
    return ethernet(0x0806, b"\0" * 14 + socket.inet_aton(source) + b"\0" * 10)


def capture(path: Path, *frames: bytes) -> Path:
    records = b"".join(struct.pack("=IIII", 0, 0, len(f), len(f)) + f for f in frames)
    path.write_bytes(b"\0" * 24 + records)
    return path


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ((), "never sent a frame"),
        ((ethernet(0x86DD, b"\0" * 40),), "never asked for an address"),
        ((ipv4("0.0.0.0", 17, 67), ipv4("0.0.0.0", 17, 67)), "asked for an address 2 times"),
        ((ipv4("10.0.2.15"),), "speaks from 10.0.2.15"),
        ((arp("10.0.2.50"),), "speaks from 10.0.2.50"),
    ],
)
def test_how_far_the_network_came(tmp_path: Path, frames: tuple[bytes, ...], words: str) -> None:
    assert words in read(capture(tmp_path / "net.pcap", *frames), MAC).describe()


def test_others_frames_do_not_count(tmp_path: Path) -> None:
    frame = ethernet(0x0800, b"\0" * 40, source="52:55:0a:00:02:02")
    assert read(capture(tmp_path / "net.pcap", frame), MAC).frames == 0


def test_a_capture_that_is_still_written_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = capture(tmp_path / "net.pcap", arp("10.0.2.15"), arp("10.0.2.15"))
    path.write_bytes(path.read_bytes()[:-60])
    assert read(path, MAC).addresses == {"10.0.2.15"}


def test_no_capture_is_no_traffic(tmp_path: Path) -> None:
    assert read(tmp_path / "none.pcap", MAC).frames == 0
