"""What a guest's dnf is told of repositories, and what it is not."""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from imagefactory import template
from imagefactory.arch import ArchProfile, ArchProfiles
from imagefactory.data import SearchPath, shipped_directory
from imagefactory.plan import BuildPlan
from imagefactory.rootfs.rpm_repositories import files
from imagefactory.rpmtree import RpmRepository, RpmTree

SHIPPED = SearchPath((shipped_directory(),))
EPEL = {
    "id": "epel",
    "name": "EPEL $releasever",
    "metalink": "https://mirrors.fedoraproject.org/metalink?repo=epel-10&arch=$basearch",
    "baseurl": "https://dl.fedoraproject.org/pub/epel/10/Everything/$basearch/",
    "keys": (
        {"file": "keys/epel-10.asc", "fingerprint": "7D8D15CBFC4E62688591FB2633D98517E37ED158"},
    ),
}
PLACE = "etc/pki/rpm-gpg/RPM-GPG-KEY-imagefactory-33D98517E37ED158"


@dataclass(frozen=True)
class Planned:
    """What of a plan counts here."""

    profile: ArchProfile

    def beside(self, name: str) -> Path:
        return shipped_directory() / "templates" / name


@pytest.fixture
def recipe() -> RpmTree:
    found = template.load(SHIPPED, "centos-stream-10")[0].recipe
    assert isinstance(found, RpmTree)
    return found


def told(recipe: RpmTree, *more: dict[str, Any], **changed: object) -> dict[str, str]:
    extra = tuple(RpmRepository.model_validate(one) for one in more)
    profile = ArchProfiles.load(SHIPPED).get("ppc64le")
    asked = recipe.model_copy(update={"extra_repositories": extra, **changed})
    made = files(cast("BuildPlan", Planned(profile)), asked)
    return {file.path: file.content for file in made}


def section(text: str, name: str) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    assert parser.sections() == [name]
    return dict(parser[name])


def test_an_added_repository_is_known_with_its_key(recipe: RpmTree) -> None:
    found = told(recipe, EPEL)
    key = (shipped_directory() / "templates/keys/epel-10.asc").read_text()
    assert found[PLACE] == key
    assert section(found["etc/yum.repos.d/imagefactory-epel.repo"], "epel") == {
        "name": "EPEL $releasever",
        "metalink": EPEL["metalink"],
        "gpgcheck": "1",
        "repo_gpgcheck": "0",
        "gpgkey": f"file:///{PLACE}",
        "module_hotfixes": "0",
        "skip_if_unavailable": "0",
        "enabled": "1",
    }
    assert len(found) == 2


def test_the_file_lies_where_the_package_manager_looks(recipe: RpmTree) -> None:
    assert {*told(recipe, EPEL, repository_files="etc/zypp/repos.d")} == {
        PLACE,
        "etc/zypp/repos.d/imagefactory-epel.repo",
    }


def test_an_address_is_that_of_the_architecture(recipe: RpmTree) -> None:
    url = "https://packages.example.com/power/"
    own = {"id": "own", "baseurl": "https://packages.example.com/x86/", "trusted": True}
    found = told(recipe, {**own, "baseurls": {"ppc64le": url}})
    assert section(found["etc/yum.repos.d/imagefactory-own.repo"], "own")["baseurl"] == url


def test_nothing_is_told_of_the_distributions_own_of_this_machines_or_when_asked_not_to(
    recipe: RpmTree,
) -> None:
    assert told(recipe) == {}
    assert told(recipe, {"id": "here", "baseurl": "file:///srv/rpms", "trusted": True}) == {}
    assert told(recipe, EPEL, guest_repositories=False) == {}
