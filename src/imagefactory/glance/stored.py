"""Images as a cloud has them: Glance's records, read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

MARK_PREFIX = "imagefactory_"
"""Properties that begin so are ours; only images that carry them are ever touched."""
MARK_IMAGE, MARK_ARCH = "imagefactory_image", "imagefactory_arch"
MARK_DIGEST, MARK_TESTED = "imagefactory_digest", "imagefactory_tested"
MARK_LINE = "imagefactory_line"
"""Which of several lines of builds in one project; most have but one, and no such mark."""
MARK_PART = "imagefactory_part"
"""``kernel`` or ``ramdisk``: an image that others are started with; those have no such mark."""
MARK_BUILT = "imagefactory_built"
"""When it was built, in UTC: ``20260102T030405Z``. It sorts builds, and dates their names."""
MARK_SET = "imagefactory_set"
"""The names of the properties that we gave an image: what of them is wanted no more is removed,
what an operator has added stays."""
MARK_LEASE = "imagefactory_lease"
"""Who is sending the image, and until when at most: ``HOST 20260102T030405Z``."""

TIME_FORMAT = "%Y%m%dT%H%M%SZ"

UNFINISHED = frozenset({"queued", "saving", "uploading", "importing"})
"""States of an image whose data is not there yet, Glance's "Image Statuses"."""

_CORE = frozenset(
    {
        *("id", "name", "status", "visibility", "os_hidden", "protected", "owner", "tags"),
        *("size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value"),
        *("disk_format", "container_format", "min_disk", "min_ram", "created_at", "updated_at"),
        *("self", "file", "schema", "locations", "direct_url", "stores"),
    }
)
"""Fields of a record that are no properties (Glance API v2, "Show image")."""

_RESERVED = "os_glance"
"""Properties that begin so are Glance's own."""


@dataclass(frozen=True)
class Stored:
    """An image in a cloud.

    Attributes:
        id: Glance's.
        name: Its name; not unique.
        status: ``active``, ``deactivated``, or one of `UNFINISHED`, ``killed``, ``deleted``.
        visibility: Who sees it.
        hidden: Not in lists unless asked for.
        protected: Glance refuses to delete it.
        size: Bytes of the data; None before it is there.
        hash_algorithm: What ``hash`` was made by; empty before the data is there.
        hash: Of the data, hexadecimal.
        fields: The other core fields that we set, by their names.
        properties: All else.
        created: When its record was made, by the cloud's clock.
        stores: Those that have its data, in clouds that have several.
        failed_stores: Those that it could not be imported to.
        message: What the cloud said of that.
    """

    id: str
    name: str
    status: str
    visibility: str
    hidden: bool
    protected: bool
    size: int | None
    hash_algorithm: str
    hash: str
    fields: Mapping[str, object]
    properties: Mapping[str, str]
    created: datetime
    stores: frozenset[str] = frozenset()
    failed_stores: frozenset[str] = frozenset()
    message: str = ""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Stored:
        """Read Glance's record of an image."""
        own = {
            name: str(value)
            for name, value in record.items()
            if name not in _CORE and not name.startswith(_RESERVED) and value is not None
        }
        kept = ("disk_format", "container_format", "min_disk", "min_ram")
        return cls(
            id=str(record["id"]),
            name=str(record.get("name") or ""),
            status=str(record["status"]),
            visibility=str(record["visibility"]),
            hidden=bool(record.get("os_hidden")),
            protected=bool(record.get("protected")),
            size=record.get("size"),
            hash_algorithm=str(record.get("os_hash_algo") or ""),
            hash=str(record.get("os_hash_value") or ""),
            fields=MappingProxyType({name: record.get(name) for name in kept}),
            properties=MappingProxyType(own),
            created=datetime.fromisoformat(str(record["created_at"])),
            stores=_words(record.get("stores")),
            failed_stores=_words(record.get("os_glance_failed_import")),
            message=str(record.get("os_glance_import_message") or "it does not say why"),
        )

    def __str__(self) -> str:
        return f"{self.id} ({self.name})"

    @property
    def unfinished(self) -> bool:
        """Whether its data is not there, or not all of it."""
        return self.status in UNFINISHED

    @property
    def built(self) -> str:
        """When it was built, as `MARK_BUILT` has it; older images have the record's own time."""
        return self.properties.get(MARK_BUILT) or self.created.astimezone(UTC).strftime(TIME_FORMAT)

    @property
    def lease(self) -> tuple[str, datetime] | None:
        """Who is sending it, and until when; None: nobody."""
        host, _, until = self.properties.get(MARK_LEASE, "").rpartition(" ")
        try:
            return host, datetime.strptime(until, TIME_FORMAT).replace(tzinfo=UTC)
        except ValueError:
            return None

    @property
    def ours(self) -> frozenset[str]:
        """The names of the properties that we gave it."""
        named = self.properties.get(MARK_SET, "").split()
        return frozenset({*named, *(n for n in self.properties if n.startswith(MARK_PREFIX))})


def _words(value: object) -> frozenset[str]:
    return frozenset(word for word in str(value or "").split(",") if word)
