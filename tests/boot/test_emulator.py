from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from imagefactory.arch import ArchProfiles
from imagefactory.boot.emulator import parse_devices, parse_machines, parse_version
from imagefactory.run import need

MACHINES = """\
Supported machines are:
microvm              microvm (i386)
pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)
pc-i440fx-7.2        Standard PC (i440FX + PIIX, 1996) (default)
q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-7.2)
"""

DEVICES = """\
Controller/Bridge/Hub devices:
name "pcie-root-port", bus PCI, desc "PCI Express Root Port"

Network devices:
name "virtio-net-pci", bus PCI, alias "virtio-net"
"""


def test_machine_types_lead_to_their_canonical_names() -> None:
    assert parse_machines(MACHINES) == {
        "microvm": "microvm",
        "pc": "pc-i440fx-7.2",
        "pc-i440fx-7.2": "pc-i440fx-7.2",
        "q35": "pc-q35-7.2",
    }


def test_devices_are_found_by_name() -> None:
    assert parse_devices(DEVICES) == {"pcie-root-port", "virtio-net-pci"}


def test_the_version_is_found() -> None:
    assert parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)") == "7.2.22"
    assert parse_version("?") == "unknown"


LEVELS = {
    "x86-64-v2": ["cx16", "lahf-lm", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"],
    "x86-64-v3": ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"],
}
"""What the levels add, x86-64 psABI, by QEMU's names."""


@pytest.mark.system
@pytest.mark.parametrize("level", LEVELS)
def test_qemu_emulates_what_an_image_may_ask_for(profiles: ArchProfiles, level: str) -> None:
    hypervisor = profiles.get("x86_64").hypervisor
    qemu = need(hypervisor.qemu, hypervisor.qemu_package)
    (model, *changed) = (hypervisor.cpu_levels[level].tcg_cpu or "").split(",")
    assert changed == []
    asked = (
        {"execute": "qmp_capabilities"},
        {
            "execute": "query-cpu-model-expansion",
            "arguments": {"type": "full", "model": {"name": model}},
        },
        {"execute": "quit"},
    )
    words: list[str | Path] = [
        qemu,
        "-machine",
        "none,accel=tcg",
        "-display",
        "none",
        "-qmp",
        "stdio",
    ]
    text = "\n".join(map(json.dumps, asked))
    said = subprocess.run(words, input=text, capture_output=True, text=True, check=True).stdout
    answers = [json.loads(line) for line in said.splitlines()]
    (properties,) = (
        answer["return"]["model"]["props"]
        for answer in answers
        if "model" in answer.get("return", {})
    )
    wanted = {**LEVELS, "x86-64-v3": [*LEVELS["x86-64-v2"], *LEVELS["x86-64-v3"]]}[level]
    # QEMU calls SSE3 by its first name, "Prescott new instructions".
    assert [name for name in wanted if not properties.get({"sse3": "pni"}.get(name, name))] == []
