"""dnf's answers and refusals, asked of real repositories on this machine's disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from imagefactory.errors import PackageError
from imagefactory.packages.dnf import Dnf, Wish
from imagefactory.packages.pool import Package
from imagefactory.rpmtree import RpmRepository, SigningKey
from tests.debs import Key
from tests.rpm import rpms
from tests.rpm.images import fingerprint

pytestmark = pytest.mark.system

Asker = Callable[..., Dnf]


@pytest.fixture
def repository(keys: tuple[Key, Key], tmp_path: Path) -> rpms.RpmRepository:
    """A program that needs a library, and recommends an extra one."""
    made = rpms.RpmRepository(tmp_path / "repository", keys[0])
    made.add("program", requires=["library >= 2"], recommends=("extra",), architecture="ppc64le")
    made.add("library", version="2.0")
    made.add("extra")
    made.groups["core"] = ["program"]
    made.publish()
    return made


@pytest.fixture
def asker(repository: rpms.RpmRepository, tmp_path: Path) -> Asker:
    """Make one that asks the repository, as a template would describe it."""

    def make(
        *,
        architecture: str = "ppc64le",
        offline: bool = False,
        key_file: Path | None = None,
        more: tuple[RpmRepository, ...] = (),
        **described: object,
    ) -> Dnf:
        file = key_file or repository.key_file
        key = SigningKey(file="key", fingerprint=fingerprint(repository.key_file))
        signed = {} if described.get("trusted") else {"keys": (key,)}
        fields = {"id": "test", "baseurl": repository.url, **signed, **described}
        asked = RpmRepository.model_validate(fields)
        return Dnf(
            (asked, *more), {key: file}, architecture, "44", tmp_path / "cache", offline=offline
        )

    return make


def ready(dnf: Dnf) -> Dnf:
    dnf.refresh()
    return dnf


def names(packages: tuple[Package, ...]) -> list[str]:
    return [package.name for package in packages]


def test_what_is_needed_comes_along(asker: Asker) -> None:
    dnf = ready(asker(signed_metadata=True))
    chosen = dnf.resolve(Wish(("program",)))
    assert names(chosen) == ["library", "program"]
    told = {package.name: (package.version, package.architecture) for package in chosen}
    assert told == {"library": ("2.0-1", "noarch"), "program": ("1.0-1", "ppc64le")}


def test_what_is_recommended_comes_along_when_it_is_asked_for(asker: Asker) -> None:
    assert names(ready(asker()).resolve(Wish(("program",), weak=True))) == [
        "extra",
        "library",
        "program",
    ]


def test_a_group_is_what_it_lists(asker: Asker) -> None:
    assert "program" in names(ready(asker()).resolve(Wish(("@core",))))


def test_a_package_that_is_excluded_and_needed_is_told(asker: Asker) -> None:
    with pytest.raises(PackageError, match="library"):
        ready(asker()).resolve(Wish(("program",), exclude=("library",)))


def test_what_was_chosen_is_fetched_once_and_taken_offline(
    asker: Asker, repository: rpms.RpmRepository
) -> None:
    dnf = ready(asker())
    chosen = dnf.resolve(Wish(("program",)))
    dnf.fetch(chosen)
    for package in chosen:
        assert dnf.pool.take(package).suffix == ".rpm"
    repository.forget()
    for rpm in repository.rpms:
        repository.withhold(rpm)
    without = ready(asker(offline=True))
    again = without.resolve(Wish(("program",)))
    assert again == chosen
    without.fetch(again)


def test_offline_says_what_it_lacks(asker: Asker) -> None:
    with pytest.raises(PackageError, match=r"package lists of test \(ppc64le\) were never"):
        asker(offline=True).refresh()
    chosen = ready(asker()).resolve(Wish(("program",)))
    with pytest.raises(PackageError, match="not in the cache: library"):
        ready(asker(offline=True)).fetch(chosen)


def test_a_package_that_does_not_exist_is_named(asker: Asker) -> None:
    with pytest.raises(PackageError, match="progam") as caught:
        ready(asker()).resolve(Wish(("progam", "library")))
    assert "`packages:`" in caught.value.hint


def test_an_architecture_that_is_not_there_is_told(asker: Asker) -> None:
    with pytest.raises(PackageError, match="program"):
        ready(asker(architecture="aarch64")).resolve(Wish(("program",)))


def test_a_package_that_is_not_signed_is_refused(
    asker: Asker, repository: rpms.RpmRepository
) -> None:
    repository.add("forged", sign=False)
    repository.publish()
    dnf = ready(asker())
    chosen = dnf.resolve(Wish(("forged",)))
    with pytest.raises(PackageError, match="SIGNATURES NOT OK") as caught:
        dnf.fetch(chosen)
    assert caught.value.log
    assert dnf.pool.missing(chosen) == chosen

    trusting = ready(asker(trusted=True))
    trusting.fetch(trusting.resolve(Wish(("forged",))))


def test_a_package_that_a_stranger_signed_is_refused(
    asker: Asker, repository: rpms.RpmRepository, keys: tuple[Key, Key]
) -> None:
    forged = repository.add("forged", sign=False)
    rpms.sign_rpms([forged], keys[1])
    repository.publish()
    dnf = ready(asker())
    with pytest.raises(PackageError, match="SIGNATURES NOT OK"):
        dnf.fetch(dnf.resolve(Wish(("forged",))))


def test_a_package_that_is_not_what_the_list_says_is_refused(
    asker: Asker, repository: rpms.RpmRepository
) -> None:
    dnf = ready(asker())
    chosen = dnf.resolve(Wish(("extra",)))
    repository.damage(repository.rpms[2])
    with pytest.raises(PackageError, match="hecksum"):
        dnf.fetch(chosen)
    assert dnf.pool.missing(chosen) == chosen


def test_a_package_that_is_gone_is_named(asker: Asker, repository: rpms.RpmRepository) -> None:
    dnf = ready(asker())
    chosen = dnf.resolve(Wish(("extra",)))
    repository.withhold(repository.rpms[2])
    with pytest.raises(PackageError, match="extra"):
        dnf.fetch(chosen)


def test_a_list_that_is_not_what_its_index_says_is_refused(
    asker: Asker, repository: rpms.RpmRepository
) -> None:
    repository.lie("library", "libfoul")
    with pytest.raises(PackageError, match="hecksum"):
        asker().refresh()


def test_a_list_that_a_stranger_signed_is_refused(
    asker: Asker, repository: rpms.RpmRepository, keys: tuple[Key, Key]
) -> None:
    repository.publish(signed_by=keys[1])
    with pytest.raises(PackageError, match="GPG"):
        asker(signed_metadata=True).refresh()


def test_a_key_that_is_not_the_one_that_was_meant_is_refused(
    asker: Asker, keys: tuple[Key, Key], tmp_path: Path
) -> None:
    other = rpms.armoured(keys[1])
    with pytest.raises(PackageError, match=f"holds the key {fingerprint(other)}, not"):
        asker(key_file=other).refresh()
    both = tmp_path / "both"
    both.write_bytes(rpms.armoured(keys[0]).read_bytes() + other.read_bytes())
    with pytest.raises(PackageError, match="holds the key"):
        asker(key_file=both).refresh()
    with pytest.raises(PackageError, match="does not exist"):
        asker(key_file=tmp_path / "nowhere").refresh()


def test_what_is_not_required_is_left_out_and_told(asker: Asker, tmp_path: Path) -> None:
    gone = RpmRepository(
        id="gone", baseurl=f"file://{tmp_path}/nowhere", trusted=True, required=False
    )
    dnf = ready(asker(more=(gone,)))
    assert dnf.left_out == ("gone (ppc64le) left out: it could not be read",)
    assert names(dnf.resolve(Wish(("library",)))) == ["library"]
    missing = gone.model_copy(update={"required": True})
    with pytest.raises(PackageError, match="gone"):
        asker(more=(missing,)).refresh()


def test_the_lists_of_a_moment_ago_are_not_asked_for_again(
    asker: Asker, repository: rpms.RpmRepository
) -> None:
    dnf = ready(asker())
    repository.forget()
    dnf.refresh()
    stamp = next((dnf.pool.directory.parent / "dnf").glob("*/refreshed"))
    os.utime(stamp, (1, 1))
    with pytest.raises(PackageError):
        dnf.refresh()


def test_an_architecture_may_have_an_address_of_its_own() -> None:
    two = RpmRepository(
        id="two", baseurl="http://a/x", baseurls={"ppc64le": "http://b/x"}, trusted=True
    )
    assert two.for_architecture("ppc64le").baseurl == "http://b/x"
    assert two.for_architecture("x86_64").baseurl == "http://a/x"
