"""Filesystems written into plain files: ext4 from a tar, FAT from a list of files."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from imagefactory import run
from imagefactory.disk.layout import Partition
from imagefactory.errors import BuildError, CommandError
from imagefactory.identifiers import fat_serial
from imagefactory.packages.tools import Tools

_EXT4_FEATURES = "^metadata_csum_seed,^orphan_file"
"""Off: GRUB before 2.12 does not read a filesystem that has them."""

_INODE_RATIO = 16384
"""Bytes of the filesystem per inode: mke2fs's usual ratio, whatever the size."""


_BLOCK = 4096
"""Bytes of a block: what every guest's page size can read, and mke2fs's choice from 512 MiB on."""

_LABEL_TIMEOUT = 600.0
"""Seconds; twenty thousand files take one."""

_FULL = ("Could not allocate", "No space left", "No free space")
"""What mke2fs says, of blocks, inodes or directories, when a tree is too large."""


def make_ext4(
    disk: Path,
    partition: Partition,
    tar: Path,
    identity: uuid.UUID,
    epoch: int,
    tools: Tools,
    log: Path,
) -> None:
    """Write an ext4 filesystem that holds a tar's files, the same bytes every time.

    Args:
        disk: The disk's file, all zeroes where the partition lies: mke2fs writes none itself
            (``assume_storage_prezeroed``), so journal and inode tables stay holes in the file.
        partition: Where on the disk.
        tar: The tree; owners, modes and capabilities are taken as they stand in it. Of extended
            attributes mke2fs 1.47 takes no other from a tar; `label_ext4` writes more.
            Blocks and inodes are given out in its order (`imagefactory.tree`, "Order").
        identity: Its UUID; the directory hash seed is derived from it.
        epoch: Seconds since 1970 for all its times.
        tools: Host programs (mke2fs 1.47.1 or later with libarchive).
        log: Where the programs' output is kept.

    Raises:
        BuildError: The files do not fit.
        CommandError: mke2fs refuses them.
    """
    seed = uuid.uuid5(identity, "directory hash seed")
    options = (
        f"offset={partition.start}",
        f"hash_seed={seed}",
        "lazy_itable_init=0",
        "lazy_journal_init=0",
        "nodiscard",
        "assume_storage_prezeroed=1",
    )
    words: list[str | Path] = [
        *tools.command("mke2fs"),
        *("-q", "-t", "ext4", "-b", str(_BLOCK), "-I", "256", "-i", str(_INODE_RATIO)),
        *("-m", "1", "-O", _EXT4_FEATURES, "-U", str(identity), "-L", "root"),
        *("-E", ",".join(options)),
        *("-d", tar, disk, str(partition.size // _BLOCK)),
    ]
    env = {"SOURCE_DATE_EPOCH": str(epoch), "MKE2FS_CONFIG": str(_configuration(tools))}
    try:
        run.run(words, env=env, log=log)
    except CommandError as error:
        if not any(sign in error.message for sign in _FULL):
            raise
        raise BuildError(
            f"the tree ({tar.stat().st_size >> 20} MiB) does not fit into the root filesystem of "
            f"{partition.size >> 20} MiB",
            hint="the template's `disk_size:` says how large the disk is; 1.3 times the tree is "
            "a good measure",
            log=log,
        ) from None


def label_ext4(
    disk: Path,
    partition: Partition,
    labels: Mapping[bytes, bytes],
    epoch: int,
    tools: Tools,
    work: Path,
    log: Path,
) -> None:
    """Give the files of an ext4 filesystem their labels of SELinux.

    They fit into the inodes (256 bytes), so no block is given out and the order stays.

    Args:
        disk: The disk's file.
        partition: Where on the disk the filesystem lies.
        labels: Path in the filesystem -> label.
        epoch: Seconds since 1970 for its superblock's times.
        tools: Host programs (debugfs).
        work: A directory for what debugfs reads.
        log: Where its output is kept.

    Raises:
        BuildError: A file cannot be labelled; debugfs itself goes on and ends with status 0.
    """
    directory = work / "labels"
    directory.mkdir()
    values = {}
    for number, label in enumerate(sorted(set(labels.values()))):
        values[label] = b"labels/%d" % number
        # As setxattr(2) is told it: with the byte that ends a string.
        (directory / f"{number}").write_bytes(label + b"\0")
    commands = directory / "commands"
    with commands.open("wb") as stream:
        for path, label in labels.items():
            if b"\n" in path:
                raise BuildError(f"{path!r} cannot be labelled: debugfs reads lines")
            quoted = path.replace(b'"', b'""')
            stream.write(b'ea_set -f %s "/%s" security.selinux\n' % (values[label], quoted))
    # By its name alone: a question mark in the path would begin the options.
    where = f"{os.path.relpath(disk, work)}?offset={partition.start}"
    words: list[str | Path] = [*tools.command("debugfs"), "-w", "-f", commands, where]
    env = {"SOURCE_DATE_EPOCH": str(epoch)}
    done = run.run(words, env=env, cwd=work, timeout=_LABEL_TIMEOUT)
    # Its first line is its name and version.
    wrong = [line for line in done.stderr.splitlines() if not line.startswith("debugfs ")]
    if wrong or done.stdout.count("\ndebugfs: ") + 1 < len(labels):
        with log.open("a", encoding="utf-8") as kept:
            kept.write("\n".join(wrong))
        raise BuildError(f"files cannot be labelled: {(wrong or ['debugfs ended'])[0]}", log=log)


def make_fat(
    target: Path,
    files: Mapping[str, Path],
    size: int,
    identity: uuid.UUID,
    epoch: int,
    tools: Tools,
    log: Path,
) -> None:
    """Write a FAT filesystem (the ESP) that holds some files, the same bytes every time.

    Args:
        target: The file to create.
        files: Path inside the filesystem -> the file's content.
        size: Bytes.
        identity: Where the volume's serial number is taken from.
        epoch: Seconds since 1970 for all its times.
        tools: Host programs (mtools).
        log: Where the programs' output is kept.

    Raises:
        CommandError: The files do not fit.
    """
    with target.open("wb") as stream:
        stream.truncate(size)
    env = {"SOURCE_DATE_EPOCH": str(epoch), "TZ": "UTC", "MTOOLS_SKIP_CHECK": "1"}
    serial = fat_serial(identity).replace("-", "")

    def mtools(program: str, *arguments: str | Path) -> None:
        words = tools.command("mtools", program)
        # By its name alone: mtools reads a path as a shell would ($(...) and all).
        run.run([*words, "-i", target.name, *arguments], env=env, log=log, cwd=target.parent)

    mtools("mformat", "-N", serial, "-v", "ESP", "::")
    for folder in sorted({str(parent) for path in files for parent in Path(path).parents}):
        if folder != ".":
            mtools("mmd", f"::{folder}")
    for path, source in sorted(files.items()):
        mtools("mcopy", source.absolute(), f"::{path}")


def _configuration(tools: Tools) -> Path:
    """The release's own mke2fs.conf: the host's would change the result."""
    return tools.directory / "etc/mke2fs.conf"
