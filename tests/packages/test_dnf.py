"""dnf's answers and refusals, asked of real repositories on this machine's disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from imagefactory.errors import PackageError
from imagefactory.packages.dnf import Dnf, Wish
from imagefactory.packages.mirrors import Mirrors
from imagefactory.packages.pool import Package
from imagefactory.rpmtree import RpmRepository, SigningKey
from imagefactory.run import run
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
        more_keys: dict[SigningKey, Path] | None = None,
        platform: str | None = None,
        **described: object,
    ) -> Dnf:
        file = key_file or repository.key_file
        key = SigningKey(file="key", fingerprint=fingerprint(repository.key_file))
        signed = {} if described.get("trusted") else {"keys": (key,)}
        fields = {"id": "test", "baseurl": repository.url, **signed, **described}
        asked = RpmRepository.model_validate(fields)
        return Dnf(
            (asked, *more),
            {key: file, **(more_keys or {})},
            architecture,
            "44",
            tmp_path / "cache",
            platform=platform,
            offline=offline,
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


def test_what_another_template_trusts_is_in_the_pool_and_refused_all_the_same(
    asker: Asker, repository: rpms.RpmRepository
) -> None:
    repository.add("forged", sign=False)
    repository.publish()
    trusting = ready(asker(trusted=True))
    chosen = trusting.resolve(Wish(("forged",)))
    trusting.fetch(chosen)
    asking = ready(asker())
    assert asking.resolve(Wish(("forged",))) == chosen
    for _ in range(2):
        with pytest.raises(PackageError, match=r"forged.*NOT OK"):
            asking.fetch(chosen)
    trusting.fetch(chosen)


def test_a_package_in_the_pool_is_looked_at_once_for_the_same_keys(
    asker: Asker, tmp_path: Path
) -> None:
    dnf = ready(asker())
    chosen = dnf.resolve(Wish(("program",)))
    dnf.fetch(chosen)
    (noted,) = (tmp_path / "cache/dnf").glob("*/signed")
    before = noted.stat().st_mtime_ns
    dnf.fetch(chosen)
    assert noted.stat().st_mtime_ns == before
    assert len(noted.read_text().split()) == len(chosen)


def test_a_file_without_a_key_is_named(asker: Asker, tmp_path: Path) -> None:
    file = tmp_path / "key.yaml"
    file.write_text("name: none\n")
    with pytest.raises(PackageError, match="holds the key none"):
        asker(key_file=file).refresh()


def test_no_agent_outlives_a_look_at_a_signed_list(asker: Asker, tmp_path: Path) -> None:
    ready(asker(signed_metadata=True))
    said = run(["ps", "-e", "-o", "args"]).stdout
    assert [
        line for line in said.splitlines() if "gpg-agent" in line and str(tmp_path) in line
    ] == []


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


def test_an_architecture_may_have_an_address_of_its_own(tmp_path: Path) -> None:
    two = RpmRepository(
        id="two", baseurl="http://a/x", baseurls={"ppc64le": "http://b/x"}, trusted=True
    )

    def asked(architecture: str, *rules: str) -> str:
        repositories = Mirrors.parse(rules).of_rpm([two], architecture)
        (address,) = Dnf(repositories, {}, architecture, "44", tmp_path).addresses
        return address

    assert (asked("ppc64le"), asked("x86_64")) == ("http://b/x", "http://a/x")
    assert asked("ppc64le", "http://b=http://c") == "http://c/x"
    assert asked("x86_64", "http://b=http://c") == "http://a/x"

    linked = two.model_copy(update={"metalink": "http://m/"})
    (kept,) = Mirrors.parse(["http://b=http://c"]).of_rpm([linked], "x86_64")
    (moved,) = Mirrors.parse(["http://b=http://c"]).of_rpm([linked], "ppc64le")
    assert (kept.metalink, moved.metalink) == ("http://m/", None)


@pytest.fixture
def overlay(keys: tuple[Key, Key], tmp_path: Path) -> rpms.RpmRepository:
    """Packages of one's own, older and newer ones, signed by another key."""
    made = rpms.RpmRepository(tmp_path / "overlay", keys[1])
    made.add("library", version="2.5")
    made.add("extra", version="0.5")
    made.add("own", requires=["extra"])
    made.publish()
    return made


def described(overlay: rpms.RpmRepository, **more: object) -> tuple[RpmRepository, SigningKey]:
    key = SigningKey(file="other-key", fingerprint=fingerprint(overlay.key_file))
    fields = {"id": "overlay", "baseurl": overlay.url, "keys": (key,), **more}
    return RpmRepository.model_validate(fields), key


def versions(packages: tuple[Package, ...]) -> dict[str, str]:
    return {package.name: package.version for package in packages}


def test_an_added_repository_brings_its_own_key(asker: Asker, overlay: rpms.RpmRepository) -> None:
    added, key = described(overlay)
    dnf = ready(asker(more=(added,), more_keys={key: overlay.key_file}))
    chosen = dnf.resolve(Wish(("own", "program")))
    assert versions(chosen) == {
        "own": "1.0-1",
        "extra": "1.0-1",
        "library": "2.5-1",
        "program": "1.0-1",
    }
    dnf.fetch(chosen)
    assert dnf.pool.missing(chosen) == ()


def test_the_lowest_priority_wins_whatever_the_versions_are(
    asker: Asker, overlay: rpms.RpmRepository
) -> None:
    added, key = described(overlay, priority=10)
    dnf = ready(asker(more=(added,), more_keys={key: overlay.key_file}))
    assert versions(dnf.resolve(Wish(("own",))))["extra"] == "0.5-1"


def test_a_repository_gives_nothing_that_it_is_told_not_to(
    asker: Asker, overlay: rpms.RpmRepository
) -> None:
    added, key = described(overlay, exclude=("lib*",))
    dnf = ready(asker(more=(added,), more_keys={key: overlay.key_file}))
    assert versions(dnf.resolve(Wish(("library",)))) == {"library": "2.0-1"}


def test_what_is_excluded_stays_away_from_groups_and_recommendations(
    asker: Asker, repository: rpms.RpmRepository
) -> None:
    repository.groups["core"] = ["program", "extra"]
    repository.publish()
    dnf = ready(asker())
    assert "extra" in names(dnf.resolve(Wish(("@core",))))
    assert names(dnf.resolve(Wish(("@core",), exclude=("ext*",)))) == ["library", "program"]
    weak = Wish(("program",), exclude=("extra",), weak=True)
    assert names(dnf.resolve(weak)) == ["library", "program"]


MODULE = """\
---
document: modulemd
version: 2
data:
  name: program
  stream: "{stream}"
  version: 1
  context: c0ffee00
  arch: ppc64le
  summary: made for a test
  description: made for a test
  license: {{module: [MIT]}}
  dependencies: [{{requires: {{platform: [el9]}}}}]
  artifacts: {{rpms: ["program-0:{version}-1.ppc64le"]}}
...
"""


def test_a_module_stream_is_what_is_installed_once_it_is_enabled(
    asker: Asker, repository: rpms.RpmRepository
) -> None:
    repository.add("program", version="0.9", architecture="ppc64le")
    streams = {"new": "1.0", "old": "0.9"}
    texts = (MODULE.format(stream=name, version=version) for name, version in streams.items())
    repository.publish_modules("".join(texts))
    dnf = ready(asker(platform="platform:el9"))
    for stream, version in streams.items():
        chosen = dnf.resolve(Wish(("program",), modules=(f"program:{stream}",)))
        assert versions(chosen)["program"] == f"{version}-1"
    with pytest.raises(PackageError, match="program:none"):
        dnf.resolve(Wish(("program",), modules=("program:none",)))
    dnf.fetch(chosen)


def test_packages_may_be_listed_with_sha512(
    asker: Asker, repository: rpms.RpmRepository, tmp_path: Path
) -> None:
    repository.publish(checksum="sha512")
    dnf = ready(asker())
    chosen = dnf.resolve(Wish(("library",)))
    assert [package.checksum[0] for package in chosen] == ["sha512"]
    assert ready(asker()).resolve(Wish(("library",))) == chosen  # as it was noted
    dnf.fetch(chosen)
    file = dnf.pool.take(chosen[0])
    assert file.name == f"{hashlib.sha512(file.read_bytes()).hexdigest()}.rpm"
    file.write_bytes(b"damaged")
    with pytest.raises(PackageError, match="damaged"):
        dnf.pool.take(chosen[0])


def test_packages_are_not_listed_with_a_weak_checksum(
    asker: Asker, repository: rpms.RpmRepository
) -> None:
    repository.publish(checksum="sha1")
    with pytest.raises(PackageError, match="of the kind sha1; sha256 or sha512 is expected"):
        ready(asker()).resolve(Wish(("library",)))
