from __future__ import annotations

from pathlib import Path

import pytest

from imagefactory.disk.filesystem import label_ext4
from imagefactory.errors import BuildError
from imagefactory.packages.tools import Tools
from imagefactory.run import need, run
from tests.disk.test_difference import LAYOUT, disk, tools

__all__ = ["tools"]

LABELS = {
    b"": b"system_u:object_r:root_t:s0",
    b"etc": b"system_u:object_r:etc_t:s0",
    b'etc/a "b" c': b"system_u:object_r:shadow_t:s0",
}


def test_files_have_their_labels_and_the_filesystem_stays_sound(
    tmp_path: Path,
    tools: Tools,
) -> None:
    disks = []
    for name in ("one", "other"):
        raw = disk(tmp_path / name, {'etc/a "b" c': "text"}).with_name("raw")
        label_ext4(raw, LAYOUT.root, LABELS, 1, tools, raw.parent, raw.parent / "log")
        disks.append(raw)
    where = f"{disks[0]}?offset={LAYOUT.root.start}"
    for path, label in LABELS.items():
        quoted = f"/{path.decode()}".replace('"', '""')
        words = ["debugfs", "-R", f'ea_get -V "{quoted}" security.selinux', where]
        assert run(words).stdout.encode().strip() == label + b"\0"
    run([need("e2fsck", "e2fsprogs"), "-f", "-n", where])


def test_a_file_that_cannot_be_labelled_is_named(
    tmp_path: Path,
    tools: Tools,
) -> None:
    raw = disk(tmp_path / "disk", {"etc/passwd": ""}).with_name("raw")
    wrong = {b"etc": b"a:b:c:s0", b"etc/none": b"a:b:c:s0"}
    with pytest.raises(BuildError, match="etc/none"):
        label_ext4(raw, LAYOUT.root, wrong, 1, tools, raw.parent, raw.parent / "log")
