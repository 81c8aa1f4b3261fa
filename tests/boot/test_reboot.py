from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import asyncssh
import pytest

from imagefactory.boot.guest import Guest, Output
from imagefactory.boot.reboot import compare, reboot
from imagefactory.boot.report import Check, Identity
from imagefactory.boot.running import Boot, BootFailedError


@dataclass
class Machine:
    """A machine that ends for a reason as soon as its guest is told to reboot, or does not."""

    evidence: Path
    answer: Output | Exception
    reason: str = ""
    now: float = 0.0
    shutdown_reason: str = ""
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    shut_down: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def spec(self) -> Any:
        return SimpleNamespace(budgets=SimpleNamespace(power_off=0.3), evidence=self.evidence)

    async def command(self, text: str, timeout: float, stdin: str = "") -> Output:
        assert "reboot" in text
        if self.reason:
            self.shutdown_reason = self.reason
            self.shut_down.set()
            self.exited.set()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


LOST = asyncssh.ConnectionLost("gone")
GOOD = Output(0, "", "")


def attempt(machine: Machine) -> Check:
    return asyncio.run(reboot(cast("Boot", machine), cast("Guest", machine)))


@pytest.mark.parametrize("answer", [GOOD, Output(-1, "", ""), LOST, OSError("broken pipe")])
def test_a_reset_is_a_reboot_however_the_connection_ends(
    tmp_path: Path, answer: Output | Exception
) -> None:
    (tmp_path / "network.pcap").touch()
    assert attempt(Machine(tmp_path, answer, "guest-reset")).verdict == "passed"
    assert [path.name for path in tmp_path.iterdir()] == ["before-reboot-network.pcap"]


@pytest.mark.parametrize(
    ("answer", "reason", "message"),
    [
        (GOOD, "guest-shutdown", "did not reset its machine: guest-shutdown"),
        (GOOD, "", "runs on"),
        (LOST, "", "runs on"),
        (Output(1, "", "sudo: a password is required\n"), "", "refuses .* a password is required"),
        (Output(127, "", ""), "", "refuses to reboot: status 127"),
    ],
)
def test_all_else_is_none(
    tmp_path: Path, answer: Output | Exception, reason: str, message: str
) -> None:
    with pytest.raises(BootFailedError, match=message) as caught:
        attempt(Machine(tmp_path, answer, reason))
    assert caught.value.failure == "no reboot"


def test_the_checks_of_the_second_boot_have_names_of_their_own() -> None:
    me = Identity("a" * 32, "1", {"rsa": "SHA256:1"})
    again = Identity("a" * 32, "2", {"rsa": "SHA256:1"})
    checks = compare(me, again, (Check("hostname", "passed", "x"),))
    assert [check.name for check in checks] == [
        "reboot: booted anew",
        "reboot: same machine-id",
        "reboot: same ssh host keys",
        "reboot: hostname",
    ]
