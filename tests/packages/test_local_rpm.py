"""Packages beside a template win over every repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagefactory.errors import ConfigError, PackageError
from imagefactory.packages.dnf import Dnf, Wish
from imagefactory.packages.local_rpm import repository_of
from imagefactory.rpmtree import SigningKey
from tests.debs import Key
from tests.rpm import rpms
from tests.rpm.images import fingerprint

pytestmark = pytest.mark.system


def test_an_older_kernel_of_ones_own_is_taken(keys: tuple[Key, Key], tmp_path: Path) -> None:
    repository = rpms.RpmRepository(tmp_path / "repository", keys[0])
    repository.add("kernel-core", version="6.12", architecture="x86_64")
    repository.publish()
    own = tmp_path / "own"
    rpms.make_rpm(own, "kernel-core", version="6.6", architecture="x86_64")
    here = repository_of(own, tmp_path / "cache")
    assert repository_of(own, tmp_path / "cache") == here

    key = SigningKey(file="key", fingerprint=fingerprint(repository.key_file))
    from_afar = here.model_copy(
        update={
            "id": "afar",
            "baseurl": repository.url,
            "keys": (key,),
            "trusted": False,
            "priority": None,
        }
    )
    keyring = {key: repository.key_file}
    dnf = Dnf((from_afar, here), keyring, "x86_64", "44", tmp_path / "cache")
    dnf.refresh()
    (kernel,) = dnf.resolve(Wish(("kernel-core",)))
    assert kernel.version == "6.6-1"
    dnf.fetch([kernel])  # nobody signed it
    assert dnf.unsigned == (here.baseurl,)


def test_a_directory_without_packages_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no \.rpm files"):
        repository_of(tmp_path, tmp_path / "cache")


def test_a_file_that_is_no_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.rpm").write_bytes(b"no package")
    with pytest.raises(PackageError, match=r"bad\.rpm is not an RPM package"):
        repository_of(tmp_path, tmp_path / "cache")
