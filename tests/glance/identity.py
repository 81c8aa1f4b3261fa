"""A real Keystone with TLS, and a Glance that believes it, on the loopback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openstack.connection import Connection

from imagefactory.devcloud import configuration, people, services
from imagefactory.devcloud.configuration import REGION
from tests.glance.cloud import running_glance, service_venv

CANARY = "correct-horse-canary-staple"
"""The password of every user: it may be found nowhere but in clouds.yaml."""


@dataclass(frozen=True)
class Identity:
    """A cloud with Keystone and Glance.

    Attributes:
        url: Keystone's.
        authority: The certificate that it is to be believed by.
        project: The id of the project whose member ``builder`` is; ``reader`` only reads there.
    """

    url: str
    authority: Path
    project: str

    def auth(self, user: str = "builder", **changes: str) -> dict[str, str]:
        """What clouds.yaml says of a user with a password."""
        return {
            "auth_url": self.url,
            "username": user,
            "password": CANARY,
            "project_id": self.project,
            "user_domain_id": "default",
            **changes,
        }

    def entry(self, auth: dict[str, str], **more: Any) -> dict[str, Any]:
        """A cloud of clouds.yaml."""
        return {"auth": auth, "region_name": REGION, "cacert": str(self.authority), **more}

    @contextlib.contextmanager
    def service(self, kind: str, url: str) -> Iterator[None]:
        """Have the catalog name one more service while a block runs."""
        with self.connect("admin") as cloud:
            keystone: Any = cloud.identity
            service = keystone.create_service(name=kind, type=kind)
            keystone.create_endpoint(
                service_id=service.id, interface="public", region_id=REGION, url=url
            )
            try:
                yield
            finally:
                keystone.delete_service(service.id)

    @contextlib.contextmanager
    def region(self, name: str, directory: Path) -> Iterator[str]:
        """Have one more region, with a Glance of its own, while a block runs; yield its URL."""
        with (
            running_glance(directory, asking=self.asking) as endpoint,
            self.connect("admin") as cloud,
        ):
            keystone: Any = cloud.identity
            keystone.create_region(id=name)
            (service,) = keystone.services(type="image")
            made = keystone.create_endpoint(
                service_id=service.id, interface="public", region_id=name, url=endpoint
            )
            try:
                yield endpoint
            finally:
                keystone.delete_endpoint(made.id)
                keystone.delete_region(name)

    @property
    def asking(self) -> str:
        """How a Glance asks this Keystone."""
        return configuration.authtoken(self.url, self.authority, CANARY)

    def connect(self, user: str = "builder", region: str = REGION) -> Connection:
        """Log in by a client of one's own."""
        auth = self.auth(user)
        if user == "admin":
            del auth["project_id"]
            auth |= people.ADMIN_PROJECT
        return people.connect({**self.entry(auth), "region_name": region})


@contextlib.contextmanager
def running_identity(directory: Path) -> Iterator[Identity]:
    """Run Keystone and Glance in a directory, with a project and two users."""
    venv = service_venv()
    keystone, glance = directory / "keystone", directory / "glance"
    configuration.keystone(keystone)
    services.make_keystone_database(venv, keystone)
    with services.listening() as listener:
        url = services.url_of("keystone", listener)
        services.bootstrap(venv, keystone, url, CANARY)
        nobody = Identity(url, keystone / "tls.crt", "")
        with (
            services.serving(venv, "keystone", keystone, listener),
            running_glance(glance, asking=nobody.asking) as endpoint,
            contextlib.closing(nobody.connect("admin")) as admin,
        ):
            users = {"builder": (CANARY, "member"), "reader": (CANARY, "reader")}
            project = people.populate(admin, users)
            people.announce_glance(admin, endpoint)
            yield Identity(url, nobody.authority, project)


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identity]:
    """Run them for the session."""
    with running_identity(tmp_path_factory.mktemp("identity")) as found:
        yield found
