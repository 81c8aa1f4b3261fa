"""Uploads to a real Glance: whole, verified and visible at the end, or nothing at all."""

from __future__ import annotations

import dataclasses
import hashlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagefactory.arch import ArchProfile, ArchProfiles
from imagefactory.data import SearchPath, shipped_directory
from imagefactory.errors import CloudError, ConfigError, ImageFactoryError, PropertyError
from imagefactory.glance import upload as uploads
from imagefactory.glance.failures import UnknownCloudError
from imagefactory.glance.inspect import UnsafeDiskError
from imagefactory.glance.newimage import NewImage
from imagefactory.glance.target import Rotation
from imagefactory.glance.upload import Manner, OlderBuildError, UntestedImageError, Uploaded
from imagefactory.properties import derive
from imagefactory.run import run
from tests.glance.cloud import GlanceCloud, cloud_at, running_glance
from tests.glance.images import MINIMAL, qcow2
from tests.glance.proxy import bad_wire, cut, flip

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore:.*will be removed in a future release"),  # openstacksdk
]

PROFILES = ArchProfiles.load(SearchPath((shipped_directory(),)))
AARCH64 = PROFILES.get("aarch64")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qcow2(tmp_path_factory.mktemp("disk") / "minimal.qcow2")


@pytest.fixture
def image(disk: Path) -> NewImage:
    return dataclasses.replace(
        new_image(disk),
        dated_name="minimal-{date}-{digest}",
        marker={
            **new_image(disk).marker,
            "imagefactory_digest": DIGEST.format(1),
            "imagefactory_built": BUILT.format(1),
        },
    )


def new_image(disk: Path, profile: ArchProfile = AARCH64) -> NewImage:
    return NewImage(
        disk=disk,
        name=f"minimal-{profile.name}",
        properties=derive(profile, MINIMAL),
        marker={
            "imagefactory_image": "minimal",
            "imagefactory_arch": profile.name,
            "imagefactory_digest": hashlib.sha256(profile.name.encode()).hexdigest(),
        },
        tested=True,
    )


DIGEST = "{:064x}"
BUILT = "2026010{}T000000Z"


def build(image: NewImage, directory: Path, number: int) -> NewImage:
    """The same image, built on another day: other bytes, another digest."""
    return dataclasses.replace(
        image,
        disk=qcow2(directory / f"{number}.qcow2", seed=number),
        dated_name="minimal-{date}-{digest}",
        marker={
            **image.marker,
            "imagefactory_digest": DIGEST.format(number),
            "imagefactory_built": BUILT.format(number),
        },
    )


def upload(image: NewImage, *, cloud: str, attempts: int = 1, **manner: Any) -> Uploaded:
    return uploads.upload(image, cloud=cloud, manner=Manner(attempts=attempts, **manner))


def refused(error: type[ImageFactoryError], call: Callable[[], Uploaded]) -> ImageFactoryError:
    with pytest.raises(error) as caught:
        call()
    assert caught.value.hint, "an error says what to try"
    return caught.value


@pytest.mark.parametrize("profile", PROFILES.profiles, ids=PROFILES.names)
def test_an_image_arrives_byte_for_byte_with_its_properties(
    glance_cloud: GlanceCloud, disk: Path, profile: ArchProfile
) -> None:
    image = new_image(disk, profile)
    uploaded = upload(image, cloud="member")

    record = glance_cloud.image(uploaded.id)
    intended = image.all_properties | {
        "min_disk": 1,
        "min_ram": profile.min_ram,
        "imagefactory_tested": "yes",
    }
    assert {name: record.get(name) for name in intended} == intended
    assert record["status"] == "active"
    assert record["disk_format"] == "qcow2"
    assert not [name for name in record if name.startswith("owner_specified")]
    assert glance_cloud.data(uploaded.id) == disk.read_bytes()
    assert uploaded.os_hash_value == hashlib.sha512(disk.read_bytes()).hexdigest()
    assert (uploaded.sent, uploaded.size) == (True, disk.stat().st_size)


def test_nobody_else_sees_an_image_before_it_is_verified(
    glance_cloud: GlanceCloud, image: NewImage
) -> None:
    seen_by_others: list[dict[str, Any]] = []
    seen_by_us: list[tuple[str, str]] = []

    def look(_sent: int, _total: int) -> None:
        seen_by_others.extend(glance_cloud.images("other"))
        seen_by_us.extend((now["status"], now["visibility"]) for now in glance_cloud.images())

    public = dataclasses.replace(image, visibility="public")
    uploaded = upload(public, cloud="admin", progress=look)

    assert seen_by_others == []
    assert {visibility for _, visibility in seen_by_us} == {"private"}
    assert "active" not in {status for status, _ in seen_by_us}
    assert [seen["id"] for seen in glance_cloud.images("other", name=image.name)] == [uploaded.id]


def test_progress_is_told_up_to_the_last_byte(glance_cloud: GlanceCloud, image: NewImage) -> None:
    told: list[tuple[int, int]] = []
    uploaded = upload(image, cloud="member", progress=lambda *now: told.append(now))
    assert told == sorted(told)
    assert told[-1] == (uploaded.size, uploaded.size)
    assert len(told) > 2


def test_a_second_upload_sends_nothing(glance_cloud: GlanceCloud, image: NewImage) -> None:
    told: list[int] = []
    first = upload(image, cloud="member")
    second = upload(image, cloud="member", progress=lambda sent, _: told.append(sent))
    assert (second.id, second.sent, told) == (first.id, False, [])
    assert len(glance_cloud.images()) == 1


def test_the_same_bytes_with_another_record_are_brought_in_line_and_not_sent(
    glance_cloud: GlanceCloud, image: NewImage
) -> None:
    first = upload(image, cloud="member")
    properties = {**image.properties, "hw_disk_bus": "scsi", "hw_rng_model": "virtio"}
    del properties["hw_video_model"]
    other = dataclasses.replace(
        image, name="renamed", properties={**properties, "min_ram": "300"}, visibility="shared"
    )
    glance_cloud.patch(first.id, [{"op": "add", "path": "/an_operators_own", "value": "stays"}])

    second = upload(other, cloud="member")

    (record,) = glance_cloud.images()
    assert (second.id, second.sent) == (first.id, False)
    assert record["name"] == "renamed"
    assert (record["min_ram"], record["hw_disk_bus"]) == (300, "scsi")
    assert (record["hw_rng_model"], record["visibility"]) == ("virtio", "shared")
    assert "hw_video_model" not in record, "what we set once and want no more is removed"
    assert record["an_operators_own"] == "stays"
    assert upload(other, cloud="member").steps == ()


def test_a_new_build_takes_the_name_when_it_is_good_and_the_old_one_is_hidden(
    glance_cloud: GlanceCloud, image: NewImage, tmp_path: Path
) -> None:
    first = upload(image, cloud="member")
    newer = build(image, tmp_path, 2)
    names_while_sending: list[list[tuple[str, str]]] = []

    def look(_sent: int, _total: int) -> None:
        now = glance_cloud.images(name=image.name)
        names_while_sending.append([(one["id"], one["status"]) for one in now])

    second = upload(newer, cloud="member", progress=look)

    assert names_while_sending, "the sending was watched"
    assert all(seen == [(first.id, "active")] for seen in names_while_sending)
    assert [one["id"] for one in glance_cloud.images()] == [second.id]
    (old,) = glance_cloud.images(os_hidden="true")
    assert (old["id"], old["name"]) == (first.id, newer.dated(BUILT.format(1), DIGEST.format(1)))
    assert "imagefactory_lease" not in glance_cloud.image(second.id)


@pytest.mark.parametrize("old", ["rename", "hide", "deactivate"])
def test_old_builds_are_treated_as_asked_and_go_when_their_time_is_over(
    glance_cloud: GlanceCloud, image: NewImage, tmp_path: Path, old: str
) -> None:
    rotation = Rotation.model_validate({"old": old, "keep": 1})
    ids = [
        upload(build(image, tmp_path, number), cloud="admin", rotation=rotation).id
        for number in (1, 2, 3)
    ]
    shown = {one["id"]: one for one in glance_cloud.images("admin")}
    hidden = {one["id"]: one for one in glance_cloud.images("admin", os_hidden="true")}
    assert {*shown, *hidden} == {*ids[1:]}, "the oldest is gone"
    kept = {**shown, **hidden}[ids[1]]
    assert kept["os_hidden"] is (old == "hide")
    assert kept["status"] == ("deactivated" if old == "deactivate" else "active")
    assert kept["name"] != image.name
    assert shown[ids[2]]["name"] == image.name


def test_an_older_build_can_be_brought_back(
    glance_cloud: GlanceCloud, image: NewImage, tmp_path: Path
) -> None:
    rotation = Rotation(old="deactivate")
    first = upload(build(image, tmp_path, 1), cloud="admin", rotation=rotation)
    upload(build(image, tmp_path, 2), cloud="admin", rotation=rotation)
    older = build(image, tmp_path, 1)
    refused(OlderBuildError, lambda: upload(older, cloud="admin", rotation=rotation))
    again = upload(older, cloud="admin", rotation=rotation, allow_older=True)
    assert (again.id, again.sent) == (first.id, False)
    record = glance_cloud.image(first.id)
    assert (record["name"], record["status"], record["os_hidden"]) == (image.name, "active", False)


def test_a_protected_image_and_strangers_stay(
    glance_cloud: GlanceCloud, image: NewImage, tmp_path: Path
) -> None:
    stranger = glance_cloud.create(name=image.name)
    oldest = upload(build(image, tmp_path, 1), cloud="member")
    upload(build(image, tmp_path, 2), cloud="member")
    glance_cloud.patch(oldest.id, [{"op": "replace", "path": "/protected", "value": True}])

    last = upload(build(image, tmp_path, 3), cloud="member", rotation=Rotation(keep=0))

    assert any(oldest.id in text and "protected" in text for text in last.left)
    left = {one["id"] for one in glance_cloud.images()}
    left |= {one["id"] for one in glance_cloud.images(os_hidden="true")}
    assert left == {stranger, oldest.id, last.id}
    glance_cloud.patch(oldest.id, [{"op": "replace", "path": "/protected", "value": False}])


def test_a_dry_run_tells_the_steps_and_takes_none(
    glance_cloud: GlanceCloud, image: NewImage, tmp_path: Path
) -> None:
    first = upload(image, cloud="member")
    before = glance_cloud.image(first.id)
    planned = upload(
        build(image, tmp_path, 2), cloud="member", rotation=Rotation(keep=0), dry_run=True
    )
    told = "\n".join(planned.steps)
    assert "send the image" in told
    assert f"delete {first.id}" in told
    assert glance_cloud.image(first.id) == before
    assert len(glance_cloud.images()) == 1


def test_what_a_killed_run_has_left_is_removed_by_the_next(
    glance_cloud: GlanceCloud, image: NewImage
) -> None:
    ours = upload(image, cloud="member")
    host = glance_cloud.host_of_uploads()
    marks = {name: image.marker[name] for name in ("imagefactory_image", "imagefactory_arch")}
    far = "29990101T000000Z"
    left = glance_cloud.create(name="half", imagefactory_lease=f"{host} {far}", **marks)
    others = glance_cloud.create(name="theirs", imagefactory_lease=f"another {far}", **marks)
    long_gone = glance_cloud.create(
        name="gone", imagefactory_lease="another 20200101T000000Z", **marks
    )
    unmarked = glance_cloud.create(name="foreign")

    again = upload(image, cloud="member")

    assert {one["id"] for one in glance_cloud.images()} == {ours.id, others, unmarked}
    assert len([step for step in again.steps if step.startswith("delete")]) == 2
    assert any(others in text and "is sending it" in text for text in again.left)
    assert {left, long_gone}.isdisjoint({one["id"] for one in glance_cloud.images()})


def test_two_runs_at_once_leave_one_image(glance_cloud: GlanceCloud, image: NewImage) -> None:
    """Runs of one host wait for each other; those of another, which has no lock of ours, cannot."""
    second: list[Uploaded] = []

    def meanwhile(sent: int, total: int) -> None:
        if sent == total and not second:
            with glance_cloud.another_host():
                second.append(upload(image, cloud="member"))

    first = upload(image, cloud="member", progress=meanwhile)
    (record,) = glance_cloud.images()
    assert {first.id, second[0].id} == {record["id"]}
    assert record["name"] == image.name
    assert glance_cloud.images(os_hidden="true") == []


@pytest.mark.parametrize("damage", [flip, cut], ids=["flipped", "cut"])
def test_what_the_wire_damages_is_not_left_in_the_cloud(
    glance_cloud: GlanceCloud, image: NewImage, damage: Callable[[bytes], bytes | None]
) -> None:
    with bad_wire(glance_cloud.endpoint, damage, after=1_500_000) as endpoint:
        glance_cloud.add("bad", endpoint=endpoint)
        error = refused(CloudError, lambda: upload(image, cloud="bad"))
    assert "was deleted" in error.message
    assert ("holds other bytes" if damage is flip else "broke the connection") in error.message
    assert glance_cloud.images() == []
    assert upload(image, cloud="member").sent, "the next upload succeeds"


@pytest.mark.parametrize("damage", [flip, cut], ids=["flipped", "cut"])
def test_what_the_wire_damages_is_sent_again(
    glance_cloud: GlanceCloud, image: NewImage, damage: Callable[[bytes], bytes | None]
) -> None:
    told: list[str] = []
    with bad_wire(glance_cloud.endpoint, damage, after=1_500_000, times=2) as endpoint:
        glance_cloud.add("bad", endpoint=endpoint)
        done = upload(image, cloud="bad", attempts=3, announce=told.append)
    (record,) = glance_cloud.images()
    assert (record["id"], record["status"], record["name"]) == (done.id, "active", image.name)
    assert glance_cloud.data(done.id) == image.disk.read_bytes()
    assert told
    assert all("; again in " in text for text in told)


def test_ctrl_c_leaves_no_image(glance_cloud: GlanceCloud, image: NewImage) -> None:
    def interrupt(_sent: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        upload(image, cloud="member", progress=interrupt)
    assert "was deleted" in caught.value.__notes__[0]
    assert glance_cloud.images() == []


def test_a_file_that_shrinks_while_it_is_sent_leaves_no_image(
    glance_cloud: GlanceCloud, disk: Path, tmp_path: Path
) -> None:
    shrinking = tmp_path / "shrinking.qcow2"
    shrinking.write_bytes(disk.read_bytes())

    def shrink(_sent: int, _total: int) -> None:
        with shrinking.open("r+b") as stream:
            stream.truncate(1 << 20)

    image = new_image(shrinking)
    error = refused(CloudError, lambda: upload(image, cloud="member", progress=shrink))
    assert "became shorter" in error.message
    assert glance_cloud.images() == []


def test_a_disk_with_a_backing_file_is_refused_before_anything_is_sent(
    glance_cloud: GlanceCloud, disk: Path, tmp_path: Path
) -> None:
    overlay = tmp_path / "overlay.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", overlay])
    error = refused(UnsafeDiskError, lambda: upload(new_image(overlay), cloud="nowhere"))
    assert "backing_file" in error.message
    assert glance_cloud.images() == []


@pytest.mark.parametrize(
    ("content", "disk_format", "told"),
    [
        (b"", "qcow2", "is empty"),
        (b"\0" * 4096, "qcow2", "declared qcow2 but holds raw"),
        (None, "raw", "declared raw but holds qcow2"),
        (b"QFI\xfb\0\0\0\3" + b"\0" * 60, "qcow2", "declared qcow2 but holds"),
    ],
    ids=["empty", "raw", "qcow2-as-raw", "broken"],
)
def test_a_disk_that_is_not_what_it_is_declared_is_refused(
    disk: Path, tmp_path: Path, content: bytes | None, disk_format: str, told: str
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(disk.read_bytes() if content is None else content)
    image = dataclasses.replace(new_image(path), disk_format=disk_format)
    assert told in refused(UnsafeDiskError, lambda: upload(image, cloud="nowhere")).message


def test_a_raw_disk_is_taken(glance_cloud: GlanceCloud, tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(b"\0" * (1 << 20))
    uploaded = upload(dataclasses.replace(new_image(raw), disk_format="raw"), cloud="member")
    assert glance_cloud.image(uploaded.id)["disk_format"] == "raw"


def test_wrong_properties_are_refused_before_anything_is_sent(image: NewImage) -> None:
    wrong = dataclasses.replace(image, properties={"hw_disk_buss": "scsi"})
    error = refused(PropertyError, lambda: upload(wrong, cloud="nowhere"))
    assert "did you mean 'hw_disk_bus'" in error.message


def test_a_disk_larger_than_min_disk_is_refused(tmp_path: Path) -> None:
    large = new_image(qcow2(tmp_path / "large.qcow2", mebibytes=1, virtual="3G"))
    error = refused(PropertyError, lambda: upload(large, cloud="nowhere"))
    assert error.hint == "set min_disk=3"


@pytest.mark.parametrize("marker", [{}, {"imagefactory_digest": "x", "hw_disk_bus": "ide"}])
def test_the_marker_holds_the_digest_and_our_own_names_only(
    image: NewImage, marker: dict[str, str]
) -> None:
    with pytest.raises(PropertyError, match="imagefactory_digest"):
        upload(dataclasses.replace(image, marker=marker), cloud="nowhere")


def test_an_untested_image_is_refused(image: NewImage) -> None:
    untested = dataclasses.replace(image, tested=False)
    refused(UntestedImageError, lambda: upload(untested, cloud="nowhere"))


def test_an_untested_image_that_is_allowed_is_marked(
    glance_cloud: GlanceCloud, image: NewImage
) -> None:
    untested = dataclasses.replace(image, tested=False)
    uploaded = upload(untested, cloud="member", allow_untested=True)
    assert glance_cloud.image(uploaded.id)["imagefactory_tested"] == "no"
    tested = upload(image, cloud="member")
    assert (tested.id, tested.sent) == (uploaded.id, False)
    assert glance_cloud.image(uploaded.id)["imagefactory_tested"] == "yes"


def test_a_member_may_not_publish_and_the_verified_image_stays_private(
    glance_cloud: GlanceCloud, image: NewImage
) -> None:
    public = dataclasses.replace(image, visibility="public")
    error = refused(CloudError, lambda: upload(public, cloud="member"))
    (left,) = glance_cloud.images()
    assert (left["status"], left["visibility"]) == ("active", "private")
    assert "403" in error.message
    assert f"openstack image set --public {left['id']}" in error.hint

    # Whoever may publish takes it up from there; the bytes are not sent again.
    published = upload(public, cloud="admin")
    assert (published.id, published.sent, published.visibility) == (left["id"], False, "public")


def test_a_full_quota_is_told_in_the_clouds_own_words(
    image: NewImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, client = tmp_path / "service", tmp_path / "client"
    service.mkdir()
    client.mkdir()
    with (
        running_glance(service, extra="user_storage_quota = 1MB") as endpoint,
        cloud_at(endpoint, client, monkeypatch) as cloud,
    ):
        error = refused(CloudError, lambda: upload(image, cloud="member"))
        assert "was deleted" in error.message
        assert "quota" in error.message.lower()
        assert cloud.images() == []


def test_a_cloud_that_clouds_yaml_does_not_know(glance_cloud: GlanceCloud, image: NewImage) -> None:
    error = refused(UnknownCloudError, lambda: upload(image, cloud="membre"))
    assert all(name in error.hint for name in ("member", "admin", str(glance_cloud.clouds_yaml)))


def test_no_cloud_at_all(glance_cloud: GlanceCloud, image: NewImage) -> None:
    glance_cloud.clouds_yaml.unlink()
    error = refused(UnknownCloudError, lambda: upload(image, cloud="member"))
    assert error.hint == "known: none (there is no readable clouds.yaml)"


def test_a_clouds_yaml_that_is_no_yaml(glance_cloud: GlanceCloud, image: NewImage) -> None:
    glance_cloud.clouds_yaml.write_text("clouds:\n  a: {auth: {password: hunter2}\n")
    error = refused(ConfigError, lambda: upload(image, cloud="a"))
    assert f"{glance_cloud.clouds_yaml}:3" in error.message
    assert "hunter2" not in str(error) + error.hint


def test_an_image_service_that_does_not_answer(glance_cloud: GlanceCloud, image: NewImage) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and never listens: every connection is refused
        port = silent.getsockname()[1]
        glance_cloud.add("gone", endpoint=f"http://user:hunter2@127.0.0.1:{port}")
        error = refused(CloudError, lambda: upload(image, cloud="gone"))
    assert "no image service that can be reached" in error.message
    assert str(port) in error.message
    assert "hunter2" not in error.message + error.hint


def test_a_cloud_that_refuses_the_password(glance_cloud: GlanceCloud, image: NewImage) -> None:
    glance_cloud.add("stranger", password="hunter2")
    error = refused(CloudError, lambda: upload(image, cloud="stranger"))
    assert "refused the credentials" in error.message
    assert "hunter2" not in error.message + error.hint


def test_an_image_service_that_refuses_the_token(
    glance_cloud: GlanceCloud, image: NewImage
) -> None:
    glance_cloud.clouds["token"] = {
        "auth_type": "admin_token",
        "auth": {"endpoint": glance_cloud.endpoint, "token": "hunter2"},
        "image_endpoint_override": glance_cloud.endpoint,
    }
    glance_cloud.add("another")
    error = refused(CloudError, lambda: upload(image, cloud="token"))
    assert "401" in error.message
    assert "hunter2" not in error.message + error.hint
    assert "credentials" in error.hint


def test_an_identity_service_that_does_not_answer(
    glance_cloud: GlanceCloud, image: NewImage
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v3"
        glance_cloud.clouds["member"]["auth"]["auth_url"] = url
        glance_cloud.add("another")
        error = refused(CloudError, lambda: upload(image, cloud="member"))
    assert "cannot be reached" in error.message
    assert "member-password" not in error.message + error.hint


def test_the_same_image_of_another_project_is_not_ours(
    glance_cloud: GlanceCloud, image: NewImage
) -> None:
    theirs = upload(image, cloud="other")
    ours = upload(image, cloud="admin")
    assert ours.sent
    assert ours.id != theirs.id


def test_the_environment_can_name_the_cloud(
    glance_cloud: GlanceCloud, image: NewImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in glance_cloud.clouds["member"]["auth"].items():
        monkeypatch.setenv(f"OS_{name.upper()}", value)
    assert glance_cloud.image(upload(image, cloud="envvars").id)["status"] == "active"
