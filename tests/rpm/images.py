"""A template of the test distribution, as one of Fedora's would be written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from imagefactory.data import shipped_directory
from imagefactory.run import need, run
from tests.rpm.rpms import RpmRepository

_BOOTLOADER = {
    "directory": "boot/grub2",
    "menu": "bls",
    "uefi": {
        "packages": ["shim-{efi}", "grub2-efi-{efi}"],
        "shim": "boot/efi/EFI/fedora/shim{efi}.efi",
        "grub": "boot/efi/EFI/fedora/grub{efi}.efi",
        "config_directory": "EFI/fedora",
    },
    "bios": {"packages": ["grub2-pc", "grub2-pc-modules"], "modules": "usr/lib/grub/i386-pc"},
    "prep": {
        "packages": ["grub2-ppc64le", "grub2-ppc64le-modules"],
        "modules": "usr/lib/grub/powerpc-ieee1275",
    },
}


def fingerprint(file: Path) -> str:
    """Return the fingerprint of the key in a file."""
    said = run(["gpg", "--batch", "--with-colons", "--show-keys", file]).stdout
    found = re.search(r"^fpr:+([0-9A-F]{40}):", said, re.MULTILINE)
    assert found
    return found[1]


def side_by_side(directory: Path, repositories: Mapping[str, RpmRepository]) -> str:
    """Show repositories of several architectures as a mirror does; return the address of it.

    Args:
        directory: Made for it.
        repositories: By RPM's name of the architecture.
    """
    directory.mkdir(parents=True)
    for architecture, repository in repositories.items():
        (directory / architecture).symlink_to(repository.directory)
    return f"{directory.as_uri()}/$basearch"


def write_template(
    directory: Path, name: str, repository: RpmRepository, *, baseurl: str = "", **more: Any
) -> None:
    """Write a template, and the key that it names, into ``templates/`` below a directory.

    Args:
        directory: What ``--path`` names.
        name: The image's.
        repository: Where its packages come from, and whose key has signed them.
        baseurl: What the template says of where that is.
        more: What it says besides, or otherwise; ``rpm`` is added to ours.
    """
    tools = YAML(typ="safe").load(shipped_directory() / "templates/minimal.yaml")
    templates = directory / "templates"
    templates.mkdir(parents=True, exist_ok=True)
    key = repository.key_file
    (templates / "key").write_bytes(key.read_bytes())
    source = {
        "id": "fedora",
        "baseurl": baseurl or repository.url,
        "keys": [{"file": "key", "fingerprint": fingerprint(key)}],
    }
    described = {
        "name": name,
        "description": "made for a test",
        "builder": "rpm",
        "distribution": {"id": "fedora", "version": "44", "release": "44"},
        "tool_packages": [*tools["tool_packages"], "systemd-standalone-sysusers"],
        "tool_repositories": tools["tool_repositories"],
        "kernel": "kernel-core",
        "bootloader": _BOOTLOADER,
        "compression": "fast",
        "default_user": "fedora",
        **more,
        "rpm": {"repositories": [source], **more.get("rpm", {})},
    }
    (templates / f"{name}.yaml").write_text(json.dumps(described), encoding="utf-8")


def list_esp(disk: Path, scratch: Path) -> set[str]:
    """Name the files on the ESP of a finished disk."""
    raw = scratch / "whole.raw"
    run(["qemu-img", "convert", "-O", "raw", disk, raw])
    said = run([need("mdir", "mtools"), "-i", f"{raw}@@1M", "-/", "-b", "::/"]).stdout
    return {line.removeprefix("::/") for line in said.splitlines() if not line.endswith("/")}
