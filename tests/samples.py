"""A small image of packages made on the spot, for tests that only plan."""

from __future__ import annotations

from pathlib import Path

from tests.debs import Archive

TEMPLATE = """\
name: small
description: small
builder: minimal
distribution: {{id: debian, version: "12", release: stable}}
repositories:
  - {{suite: stable, mirror: "file://{mirror}", keyring: {keyring}}}
tool_packages: [program]
bootloader:
  tools: [library]
  bios: {{packages: [grub-pc-bin], modules: usr/lib/grub}}
boot: {{x86_64: [bios]}}
kernel: linux-image-cloud
kernel_arguments: [quiet]
disk_size: 64
default_user: cloud
visibility: private
tests:
  - {{name: boot, datasource: config-drive}}
minimal:
  overlay: overlay
  packages: {{program: [usr/share/program]}}
  applets: [sh]
  modules: []
  initramfs_modules: []
  initramfs_script: etc/script
  initramfs_programs: []
  kernel_compression: none
"""


def small_template(directory: Path, archive: Archive) -> Path:
    """Write the template and its overlay below a directory of one's own."""
    archive.add("grub-pc-bin", architecture="all")
    archive.publish()
    script = directory / "templates/overlay/etc/script"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o644)
    file = directory / "templates/small.yaml"
    file.write_text(TEMPLATE.format(mirror=archive.directory, keyring=archive.key.ring))
    return file


DEBIAN = """\
name: whole
description: whole
builder: debian
distribution: {{id: debian, version: "12", release: stable}}
repositories:
  - {{suite: stable, mirror: "file://{mirror}", keyring: {keyring}}}
tool_packages: [program]
bootloader:
  tools: [library]
  bios: {{packages: [grub-pc-bin], modules: usr/lib/grub}}
boot: {{x86_64: [bios]}}
kernel: linux-image-cloud
disk_size: 64
default_user: cloud
tests:
  - {{name: boot, datasource: config-drive}}
debian:
  packages: [program]
customize:
  - script: files/script
  - copy: {{from: files/data, to: etc/data}}
"""


def debian_template(directory: Path, archive: Archive) -> Path:
    """Write a template of a whole Debian, and what it names beside itself."""
    archive.add("grub-pc-bin", architecture="all")
    archive.publish()
    files = directory / "templates/files"
    files.mkdir(parents=True)
    (files / "script").write_text("#!/bin/sh\n")
    (files / "data").write_text("data\n")
    file = directory / "templates/whole.yaml"
    file.write_text(DEBIAN.format(mirror=archive.directory, keyring=archive.key.ring))
    return file
