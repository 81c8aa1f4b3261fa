"""What is decided for a cloud, and what its readers see while it is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagefactory.glance.reconcile import (
    Activate,
    Amend,
    Change,
    Leave,
    Reconciliation,
    Remove,
    Send,
    Step,
    Wanted,
    lease,
    names_set,
    reconcile,
)
from imagefactory.glance.stored import (
    MARK_BUILT,
    MARK_DIGEST,
    MARK_LEASE,
    MARK_SET,
    TIME_FORMAT,
    Stored,
)
from imagefactory.glance.target import Rotation

NOW = datetime(2026, 6, 30, tzinfo=UTC)
HOST = "here"
NAME = "debian-12-aarch64"
FIELDS = {"disk_format": "qcow2", "container_format": "bare", "min_disk": 2, "min_ram": 512}


def wanted(build: int = 9, **changes: Any) -> Wanted:
    properties = {MARK_DIGEST: f"{build:064x}", MARK_BUILT: stamp(build), "hw_disk_bus": "virtio"}
    values: dict[str, Any] = {
        "name": NAME,
        "dated": lambda built, _digest: f"{NAME}-{built}",
        "size": 1000,
        "fields": FIELDS,
        "properties": properties,
        "visibility": "public",
        "protected": False,
        "has_hash": lambda algorithm, value: (algorithm, value) == ("sha512", f"hash {build}"),
    }
    return Wanted(**{**values, **changes})


def stamp(build: int) -> str:
    """Build 9 is of today, 8 of yesterday, and so on."""
    return (NOW - timedelta(days=9 - build)).strftime(TIME_FORMAT)


def stored(build: int = 8, **changes: Any) -> Stored:
    properties = {MARK_DIGEST: f"{build:064x}", MARK_BUILT: stamp(build), "hw_disk_bus": "virtio"}
    values: dict[str, Any] = {
        "id": f"id-{build}",
        "name": NAME,
        "status": "active",
        "visibility": "public",
        "hidden": False,
        "protected": False,
        "size": 1000,
        "hash_algorithm": "sha512",
        "hash": f"hash {build}",
        "fields": FIELDS,
        "properties": {**properties, MARK_SET: "hw_disk_bus"},
        "created": NOW - timedelta(days=9 - build),
    }
    return Stored(**{**values, **changes})


def decided(have: Sequence[Stored], want: Wanted | None = None, **rotation: Any) -> Reconciliation:
    return reconcile(want or wanted(), have, Rotation(**rotation), NOW, HOST)


def test_an_empty_cloud_gets_the_image() -> None:
    found = decided([])
    assert found.steps == (Send(),)
    assert not found.idle


def test_what_is_as_it_should_be_is_left_alone() -> None:
    found = decided([stored(9)])
    assert (found.steps, found.idle) == ((), True)
    assert found.current == stored(9)


def test_only_what_differs_is_changed_and_a_strangers_property_stays() -> None:
    have = stored(
        9,
        properties={
            **stored(9).properties,
            MARK_SET: "hw_disk_bus hw_gone",
            "hw_gone": "x",
            "an_operators": "y",
            MARK_LEASE: lease(HOST, NOW, 60),
        },
        fields={**FIELDS, "min_ram": 256},
    )
    (step,) = decided([have]).steps
    assert isinstance(step, Amend)
    assert {(change.path, change.value) for change in step.changes} == {
        ("hw_gone", None),
        (MARK_LEASE, None),
        (MARK_SET, "hw_disk_bus"),
        ("min_ram", 512),
    }


def test_another_hash_or_size_or_format_is_another_image() -> None:
    for have in (
        stored(9, hash="other"),
        stored(9, size=999),
        stored(9, hash_algorithm="", hash=""),
        stored(9, fields={**FIELDS, "disk_format": "raw"}),
    ):
        assert decided([have]).current is None


@pytest.mark.parametrize("status", ["queued", "saving", "importing", "uploading", "killed"])
def test_what_nobody_is_sending_any_more_goes(status: str) -> None:
    for held in ("", lease(HOST, NOW, 3600), lease("there", NOW, -1), "nonsense"):
        left = stored(9, status=status, properties={MARK_LEASE: held})
        assert isinstance(decided([left]).before[0], Remove), held
    busy = stored(9, status=status, properties={MARK_LEASE: lease("there", NOW, 60)})
    (step,) = decided([busy]).before
    assert isinstance(step, Leave)
    assert "there is sending it, until 2026-06-30 00:01 UTC at most" in str(step)


def test_of_the_same_bytes_one_image_stays_whoever_looks() -> None:
    first = stored(9, id="a", name="x", visibility="private", created=NOW)
    second = stored(9, id="b", name="x", visibility="private", created=NOW + timedelta(seconds=1))
    for have in ([first, second], [second, first]):
        found = decided(have)
        assert found.current == first
        assert [step.image.id for step in found.after if isinstance(step, Remove)] == ["b"]
    named = replace(second, name=NAME)
    assert decided([first, named]).current == named, "who has the name already keeps it"


@pytest.mark.parametrize(
    ("rotation", "stay"),
    [
        ({}, {8, 7, 6, 5}),
        ({"keep": 2}, {8, 7}),
        ({"keep": 0}, set()),
        ({"keep_days": 2.5}, {8, 7}),
        ({"keep": 1, "keep_days": 2.5}, {8, 7}),
        ({"keep": 3, "keep_days": 1.5}, {8, 7, 6}),
    ],
)
def test_old_builds_stay_by_number_or_by_age(rotation: dict[str, Any], stay: set[int]) -> None:
    have = [stored(9), *(stored(build, name=f"old {build}") for build in (5, 8, 6, 7))]
    after = decided(have, **rotation).after
    gone = {step.image.id for step in after if isinstance(step, Remove)}
    assert gone == {f"id-{build}" for build in (5, 6, 7, 8) if build not in stay}


def test_a_protected_one_stays_and_is_told() -> None:
    have = stored(8, name="old", protected=True, hidden=True)
    (step,) = decided([stored(9), have], keep=0).after
    assert isinstance(step, Leave)
    assert "protected" in str(step)


def test_our_own_protection_moves_on_with_the_name() -> None:
    steps = decided([stored(8, protected=True), stored(9)], wanted(protected=True), keep=0).steps
    retired = next(step for step in steps if isinstance(step, Amend) and step.image.id == "id-8")
    assert Change("protected", False, True) in retired.changes
    assert isinstance(steps[-1], Remove)


@pytest.mark.parametrize(
    ("change", "operation"),
    [
        (Change("a", "x"), {"op": "add", "path": "/a", "value": "x"}),
        (Change("a", "x", "y"), {"op": "replace", "path": "/a", "value": "x"}),
        (Change("a", None, "y"), {"op": "remove", "path": "/a"}),
        (Change("os_hidden", True, False), {"op": "replace", "path": "/os_hidden", "value": True}),
        (Change("a/b~c", "x"), {"op": "add", "path": "/a~1b~0c", "value": "x"}),
    ],
)
def test_a_change_is_a_line_of_a_json_patch(change: Change, operation: dict[str, Any]) -> None:
    assert change.operation == operation


images = st.builds(
    stored,
    st.integers(1, 9),
    name=st.sampled_from([NAME, "old"]),
    status=st.sampled_from(["active", "active", "deactivated", "queued", "saving", "killed"]),
    visibility=st.sampled_from(["private", "public"]),
    hidden=st.booleans(),
    protected=st.booleans(),
)
rotations = st.builds(
    Rotation,
    old=st.sampled_from(["rename", "hide", "deactivate"]),
    keep=st.none() | st.integers(0, 3),
    keep_days=st.none() | st.floats(0, 9),
)


@given(st.lists(images, max_size=7), rotations, st.booleans())
def test_whatever_a_cloud_has_its_readers_find_the_image_and_a_second_run_does_nothing(
    have: list[Stored], rotation: Rotation, protected: bool
) -> None:
    """Taken one by one, no step takes the name from readers that had it; then all is settled."""
    cloud = {f"id-{n}": replace(image, id=f"id-{n}") for n, image in enumerate(have)}
    want = wanted(protected=protected)
    had_it = readable(cloud) != []
    found = reconcile(want, [*cloud.values()], rotation, NOW, HOST)
    for _ in take(found.before, cloud):
        pass
    if found.current is None:
        cloud["sent"] = stored(9, id="sent", name="dated", visibility="private")
        assert (readable(cloud) != []) is had_it
        found = reconcile(want, [*cloud.values()], rotation, NOW, HOST)
    assert found.current is not None
    for _ in take((*found.present, *found.after), cloud):
        assert not had_it or readable(cloud), "at each moment there is one"
    assert readable(cloud) == [found.current.id], "in the end there is one, and no other"
    assert cloud[found.current.id].protected is protected
    again = reconcile(want, [*cloud.values()], rotation, NOW, HOST)
    assert again.idle, again.steps


def readable(cloud: dict[str, Stored]) -> list[str]:
    return [
        image.id
        for image in cloud.values()
        if (image.name, image.status, image.visibility, image.hidden)
        == (NAME, "active", "public", False)
    ]


def take(steps: Sequence[Step], cloud: dict[str, Stored]) -> Iterator[None]:
    """Do to a cloud in memory what Glance would do."""
    for step in steps:
        if isinstance(step, Remove):
            image = cloud.pop(step.image.id)
            assert not image.protected, "Glance would refuse"
        elif isinstance(step, Activate):
            status = "active" if step.active else "deactivated"
            cloud[step.image.id] = replace(cloud[step.image.id], status=status)
        elif isinstance(step, Amend):
            cloud[step.image.id] = amended(cloud[step.image.id], step.changes)
        yield


def amended(image: Stored, changes: Sequence[Change]) -> Stored:
    properties = dict(image.properties)
    fields = dict(image.fields)
    core: dict[str, Any] = {}
    for change in changes:
        if change.path in {"name", "visibility", "protected"}:
            core[change.path] = change.value
        elif change.path == "os_hidden":
            core["hidden"] = change.value
        elif change.path in fields:
            fields[change.path] = change.value
        elif change.value is None:
            del properties[change.path]
        else:
            properties[change.path] = str(change.value)
    return replace(
        image,
        properties=MappingProxyType(properties),
        fields=MappingProxyType(fields),
        **core,
    )


def test_the_names_of_properties_are_kept_without_our_marks() -> None:
    assert names_set(wanted()) == "hw_disk_bus"
