"""Fixtures that several kinds of tests share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from tests.factory import BuiltImage, Factory
from tests.glance.cloud import glance_cloud, glance_service

# A busy machine is no reason for a failure: tests have timeouts, examples have no deadlines.
settings.register_profile("factory", deadline=None)
settings.load_profile("factory")

__all__ = ["built", "factory", "glance_cloud", "glance_service", "shared_directory"]


@pytest.fixture(scope="session")
def shared_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all of pytest-xdist's workers, and for this run only."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    directory.mkdir(exist_ok=True)
    return directory


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    """The command line with a catalog of its own and the usual caches."""
    return Factory(tmp_path / "catalog")


@pytest.fixture(scope="session")
def built(shared_directory: Path) -> Callable[[str], BuiltImage]:
    """Build the minimal image for an architecture, once for all tests and workers."""

    def build(architecture: str) -> BuiltImage:
        catalog = shared_directory / "catalog"
        with FileLock(shared_directory / f"{architecture}.lock"):
            factory = Factory(catalog)
            rows = json.loads(factory.run("list", "--arch", architecture, "--json").stdout)
            if rows[0]["verdict"] is None:
                factory.run("build", "minimal", "--arch", architecture, "--skip-test")
                rows = json.loads(factory.run("list", "--arch", architecture, "--json").stdout)
        return BuiltImage.of(Path(rows[0]["disk"]))

    return build
