"""Everything that can go wrong on the way to a real Glance, by many seeds."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from imagefactory.errors import CloudError
from imagefactory.glance.newimage import NewImage
from tests.factory import MINUTES
from tests.glance.chaos import Chaos, chaotic
from tests.glance.cloud import GlanceCloud
from tests.glance.images import qcow2
from tests.glance.test_upload import build, new_image, upload

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(20 * MINUTES),
    pytest.mark.filterwarnings("ignore:.*will be removed in a future release"),  # openstacksdk
]

SEEDS = range(int(os.environ.get("IMAGEFACTORY_FAULT_SEEDS", "20")))
STALL = 1.0
SILENCE = 0.6
"""Seconds; a stalled request takes longer than what counts as gone."""


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> tuple[NewImage, NewImage]:
    directory = tmp_path_factory.mktemp("builds")
    image = dataclasses.replace(
        new_image(qcow2(directory / "small.qcow2", mebibytes=1)), name="minimal-aarch64"
    )
    return build(image, directory, 1), build(image, directory, 2)


def test_whatever_goes_wrong_readers_find_one_whole_image_and_the_next_run_mends_the_rest(
    glance_cloud: GlanceCloud, builds: tuple[NewImage, NewImage], capsys: pytest.CaptureFixture[str]
) -> None:
    older, newer = builds
    results: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for seed in SEEDS:
        upload(older, cloud="member")
        chaos = Chaos(seed, share=0.1 + 0.05 * (seed % 6), stall=STALL)
        with chaotic(glance_cloud.endpoint, chaos) as endpoint:
            glance_cloud.add("chaos", endpoint=endpoint)
            error = tried(newer)
        results["a named error" if error else "done"] += 1
        assert error is None or (error.message and error.hint), seed
        assert error is not None or names(glance_cloud, newer) == [newer], seed
        assert set(map(id, names(glance_cloud, newer))) <= {id(older), id(newer)}, seed
        assert 1 <= len(names(glance_cloud, newer)) <= 2, seed

        upload(newer, cloud="member")

        assert names(glance_cloud, newer) == [newer], f"seed {seed}: mended by the next run"
        everything = glance_cloud.images() + glance_cloud.images(os_hidden="true")
        assert {one["status"] for one in everything} == {"active"}, seed
        assert len(everything) == 2, f"seed {seed}: the new build, and the hidden old one"
        faults += chaos.happened
        for one in everything:
            glance_cloud.delete(one["id"])
    told = ", ".join(f"{count} {what}" for what, count in sorted(faults.items()))
    with capsys.disabled():
        sys.stderr.write(f"\n{len(SEEDS)} uploads, {faults.total()} faults ({told}): {results}\n")
    assert results["done"], "some get through"
    assert len(faults) == 7, "each kind has happened"


def tried(image: NewImage) -> CloudError | None:
    """Upload on the bad way; return the error that it ended with."""
    try:
        upload(image, cloud="chaos", attempts=4, pause=0.02, silence=SILENCE)
    except CloudError as error:
        return error
    return None


def names(cloud: GlanceCloud, image: NewImage) -> list[NewImage | None]:
    """What a reader finds under the image's name: whole builds, told by their data."""
    return [_of(cloud, one["id"]) for one in cloud.images(name=image.name)]


def _of(cloud: GlanceCloud, image_id: str) -> NewImage | None:
    data = cloud.data(image_id)
    return next((one for one in _KNOWN if one.disk.read_bytes() == data), None)


_KNOWN: list[NewImage] = []


@pytest.fixture(autouse=True)
def known(builds: tuple[NewImage, NewImage]) -> None:
    _KNOWN[:] = builds


def test_a_clouds_answers_are_told_without_our_secrets(
    glance_cloud: GlanceCloud, builds: tuple[NewImage, NewImage], tmp_path: Path
) -> None:
    """The chaos answers in the middle of everything; nothing of it may hold the password."""
    assert tmp_path.is_dir()
    for seed in range(5):
        chaos = Chaos(seed, share=0.9, stall=STALL)
        with chaotic(glance_cloud.endpoint, chaos) as endpoint:
            glance_cloud.add("chaos", endpoint=endpoint)
            with pytest.raises(CloudError) as caught:
                upload(builds[0], cloud="chaos", attempts=2, pause=0.01, silence=SILENCE)
        assert "member-password" not in f"{caught.value}{caught.value.hint}"
    upload(builds[0], cloud="member")
    assert len(glance_cloud.images()) == 1
