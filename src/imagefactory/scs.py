"""The SCS standard for image metadata, scs-0102-v1: what users of a cloud want to be told.

https://docs.scs.community/standards/scs-0102-v1-image-metadata (stable since 2022-10-31). nova's
own vocabulary is `imagefactory.properties`; this is what the standard asks for besides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

_DATE = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
_TIME = r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?"


@dataclass(frozen=True)
class Rule:
    """What the standard says of one property.

    Attributes:
        name: The property.
        pattern: Of its whole value, in lower case.
        wanted: The same for people.
        mandatory: Else it is recommended, or optional.
        recommended: To be there; what is neither is only looked at when it is there.
    """

    name: str
    pattern: str
    wanted: str
    mandatory: bool = False
    recommended: bool = False


RULES = (
    # "Technical requirements and features"
    *(
        Rule(name, ".+", "a value", mandatory=True)
        for name in ("architecture", "os_version", "os_distro", "hw_disk_bus")
    ),
    Rule("min_disk", "[1-9][0-9]*", "GiB, more than 0", mandatory=True),
    Rule("min_ram", "[1-9][0-9]*", "MiB, more than 0", mandatory=True),
    Rule("hypervisor_type", ".+", "a value", recommended=True),
    Rule("hw_rng_model", ".+", "virtio", recommended=True),
    # "Image updating"
    Rule(
        "replace_frequency",
        "yearly|quarterly|monthly|weekly|daily|critical_bug|never",
        "yearly, quarterly, monthly, weekly, daily, critical_bug or never",
        mandatory=True,
    ),
    Rule("provided_until", f"none|notice|{_DATE}", "none, notice or YYYY-MM-DD", mandatory=True),
    Rule(
        "uuid_validity",
        f"none|notice|forever|last-[1-9][0-9]*|{_DATE}",
        "none, notice, forever, last-N or YYYY-MM-DD",
        mandatory=True,
    ),
    Rule("hotfix_hours", "[0-9]+", "a number of hours"),
    # "Image Origin"
    Rule("image_source", r"private|[a-z][a-z0-9+.-]*://\S+", "a URL, or private", mandatory=True),
    Rule("image_description", ".+", "a URL, or text", mandatory=True),
    # "Image build info"
    Rule(
        "image_build_date",
        f"{_DATE}( {_TIME})?",
        "YYYY-MM-DD or YYYY-MM-DD hh:mm[:ss], in UTC",
        mandatory=True,
    ),
    Rule("image_original_user", ".+", "the name of the default user, or none", mandatory=True),
    # "Licensing / Maintenance subscription / Support"
    Rule("maintained_until", _DATE, "YYYY-MM-DD"),
    *(
        Rule(name, "true|false|yes|no", "true or false")
        for name in (
            *("license_included", "license_required"),
            *("subscription_included", "subscription_required"),
        )
    ),
)


@dataclass(frozen=True)
class Finding:
    """What is not as the standard has it.

    Attributes:
        kind: ``missing`` and ``wrong`` break the standard, ``recommended`` does not.
        name: The property.
        text: What it should be.
    """

    kind: Literal["missing", "wrong", "recommended"]
    name: str
    text: str

    @property
    def breaks(self) -> bool:
        """Whether the image does not conform because of it."""
        return self.kind != "recommended"

    def __str__(self) -> str:
        return f"{self.name}: {self.kind}, {self.text}"


def told(built: datetime, description: str, user: str, source: str = "private") -> dict[str, str]:
    """Return the properties of the standard that a build knows by itself.

    Args:
        built: When, in UTC.
        description: One line for people, or a URL.
        user: The default user.
        source: Where the image can be downloaded.
    """
    return {
        "image_build_date": f"{built:%Y-%m-%d %H:%M}",
        "image_description": description,
        "image_original_user": user,
        "image_source": source,
    }


def check(properties: Mapping[str, str]) -> Iterator[Finding]:
    """Tell what is not as the standard has it.

    Args:
        properties: Of an image, ``min_disk`` and ``min_ram`` among them.
    """
    for rule in RULES:
        value = properties.get(rule.name)
        if value is None:
            if rule.mandatory:
                yield Finding("missing", rule.name, f"{rule.wanted} is mandatory")
            elif rule.recommended:
                yield Finding("recommended", rule.name, "not there")
        elif not re.fullmatch(rule.pattern, value.lower()):
            yield Finding("wrong", rule.name, f"{rule.wanted} is expected, it is {value!r}")
    if properties.get("license_included") == properties.get("license_required") == "true":
        yield Finding("wrong", "license_required", "cannot be true when license_included is")
    if properties.get("hw_disk_bus") == "scsi" and "hw_scsi_model" not in properties:
        yield Finding("recommended", "hw_scsi_model", "not there, though hw_disk_bus=scsi")
