from __future__ import annotations

import uuid

from imagefactory.identifiers import fat_serial, fstab

IDENTITY = uuid.UUID("01234567-89ab-cdef-0123-456700ab00cd")


def test_a_fat_serial_is_the_end_of_the_identifier() -> None:
    assert fat_serial(IDENTITY) == "00AB-00CD"


def test_fstab_names_the_filesystems_by_what_they_are_made_with() -> None:
    def identifier(purpose: str) -> uuid.UUID:
        return uuid.uuid5(uuid.NAMESPACE_URL, purpose)

    root = identifier("root filesystem")
    serial = fat_serial(identifier("esp filesystem"))
    fields = [line.split() for line in fstab(identifier, "/boot/efi").splitlines()]
    assert [line[:3] for line in fields] == [
        [f"UUID={root}", "/", "ext4"],
        [f"UUID={serial}", "/boot/efi", "vfat"],
    ]
    assert all(len(line) == 6 for line in fields)
    assert len(fstab(identifier).splitlines()) == 1
