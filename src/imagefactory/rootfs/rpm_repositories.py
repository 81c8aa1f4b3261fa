"""What a guest's dnf or zypper is told of repositories that are not its distribution's own."""

from __future__ import annotations

from pathlib import Path

from imagefactory.packages.dnf import section
from imagefactory.plan import BuildPlan
from imagefactory.rootfs.customising import WholeFile
from imagefactory.rpmtree import RpmTree, SigningKey

_KEYS = "etc/pki/rpm-gpg"
"""Where distributions of this family have such files, too."""


def files(plan: BuildPlan, recipe: RpmTree) -> tuple[WholeFile, ...]:
    """Return the files that describe the added repositories, with their keys.

    The distribution's own come with its packages (fedora-repos and the like). What lies on this
    machine's disk is nothing to a guest.
    """
    if not recipe.guest_repositories:
        return ()
    kept = [one for one in recipe.extra_repositories if not one.baseurl.startswith("file:")]
    architecture = plan.profile.names.rpm
    keys = {key: WholeFile(_place(key), _text(plan, key)) for one in kept for key in one.keys}
    return (
        *{file.path: file for file in keys.values()}.values(),
        *(
            WholeFile(
                f"{recipe.repository_files}/imagefactory-{one.id.replace(':', '-')}.repo",
                "# Written by imagefactory.\n"
                + section(one, architecture, [Path("/", _place(key)) for key in one.keys])
                + "enabled=1\n",
            )
            for one in kept
        ),
    )


def _place(key: SigningKey) -> str:
    """Name a key's file in the guest by its fingerprint: two files of one name would be one."""
    return f"{_KEYS}/RPM-GPG-KEY-imagefactory-{key.fingerprint.replace(' ', '')[-16:]}"


def _text(plan: BuildPlan, key: SigningKey) -> str:
    return plan.beside(key.file).read_text(encoding="utf-8")
