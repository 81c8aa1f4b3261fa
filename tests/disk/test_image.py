from __future__ import annotations

import pytest

from imagefactory.disk.image import inherited_label

LABELS = {b"": b"root_t", b"boot": b"boot_t", b".d": b"dot_t", b"boot/grub2/x": b"x_t"}


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("boot/grub2/grub.cfg", b"boot_t"),
        ("boot/grub.cfg", b"boot_t"),
        ("grub.cfg", b"root_t"),
        ("d/grub.cfg", b"root_t"),
        (".d/grub.cfg", b"dot_t"),
    ],
)
def test_a_file_that_is_added_has_the_label_of_its_directory(path: str, label: bytes) -> None:
    assert inherited_label(LABELS, path) == label
