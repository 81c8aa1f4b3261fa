"""RPM packages that lie in a directory, shown to dnf as a repository."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from imagefactory import run
from imagefactory.cache import Store
from imagefactory.data import sha256_of
from imagefactory.errors import CommandError, ConfigError, PackageError
from imagefactory.rpmtree import RpmRepository

PRIORITY = 1
"""dnf.conf(5), priority: of a package that several repositories have, only those of the lowest are
looked at, whatever their versions are."""


def repository_of(directory: Path, cache: Path) -> RpmRepository:
    """Make a repository of a directory of .rpm files; it is trusted as the directory is.

    Raises:
        ConfigError: The directory holds no packages.
        PackageError: A file is not a package.
        HostError: There is no createrepo_c.
    """
    files = sorted(directory.glob("*.rpm"))
    if not files:
        raise ConfigError(
            f"{directory} holds no .rpm files",
            hint="`local_packages:` names a directory of packages beside the template",
        )
    for file in files:
        try:
            run.run([run.need("rpm", "rpm"), "--query", "--nosignature", "--package", file])
        except CommandError as error:
            raise PackageError(f"{file.name} is not an RPM package: {error.message}") from None
    text = "".join(f"{sha256_of(file)} {file.name}\n" for file in files)
    key = hashlib.sha256(f"rpm\n{text}".encode()).hexdigest()[:32]

    def make(target: Path) -> None:
        target.mkdir()
        for file in files:  # copies: the user's directory may change while a build runs
            shutil.copyfile(file, target / file.name)
        run.run([run.need("createrepo_c", "createrepo-c"), "--quiet", target])

    made = Store(cache, "local").obtain(key, make)
    return RpmRepository(
        id="imagefactory-local",
        baseurl=made.absolute().as_uri(),
        trusted=True,
        priority=PRIORITY,
        module_hotfixes=True,  # no module's stream hides them
    )
