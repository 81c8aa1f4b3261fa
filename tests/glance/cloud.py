"""A real Glance on the loopback, as pytest fixtures.

Import ``glance_service`` and ``glance_cloud`` into a conftest.py, or name this module in
``pytest_plugins``. The service is the devcloud's, with a stand-in for Keystone. Its venv is in
the program's cache; it is made once, in a minute. Glance itself is up within three seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from ruamel.yaml import YAML

from imagefactory.cache import in_use
from imagefactory.data import cache_directory
from imagefactory.devcloud import configuration, programs, services
from imagefactory.glance import upload as uploads
from imagefactory.progress import Stages
from tests.glance.believing import COMMON_ROLES, ROLES

BELIEVING = Path(__file__).with_name("believing.py")
CHECKOUT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 60.0
"""Seconds that the service may take for any one answer."""


def service_venv() -> Path:
    """Return the venv that holds the services, from the program's own cache."""
    cache = cache_directory()
    with in_use(cache):
        return programs.obtain(cache, cache / "services.log", Stages())


@contextlib.contextmanager
def running_glance(directory: Path, extra: str = "", asking: str = "") -> Iterator[str]:
    """Run a Glance in a fresh directory and hand out its endpoint.

    Args:
        directory: Where database, images and logs live.
        extra: Lines for the [DEFAULT] section of its configuration.
        asking: How it asks a real Keystone; empty: it believes what a token says.
    """
    venv = service_venv()
    believer = {} if asking else {"identity": "tests.glance.believing:identity"}
    configuration.glance(directory, extra=extra, asking=asking, **believer)
    services.make_glance_database(venv, directory)
    with services.listening() as listener:
        endpoint = services.url_of("glance", listener)
        program = () if asking else (BELIEVING,)
        env = {"PYTHONPATH": f"{CHECKOUT / 'src'}{os.pathsep}{CHECKOUT}"}
        with services.serving(venv, "glance", directory, listener, program=program, env=env):
            services.require_answer("glance", directory, endpoint, None)
            yield endpoint


@dataclass(frozen=True)
class GlanceCloud:
    """A clouds.yaml with three clouds, which are three identities at one Glance.

    ``member`` uploads, ``other`` is a member of another project, ``admin`` administers. The
    projects are new, so that tests do not see each other's images.
    """

    endpoint: str
    clouds_yaml: Path
    project: str = field(default_factory=lambda: uuid.uuid4().hex)
    clouds: dict[str, Any] = field(default_factory=dict)

    def add(
        self, name: str, *, user: str = "member", password: str = "", endpoint: str = ""
    ) -> None:
        """Add a cloud to clouds.yaml, or replace it.

        Args:
            name: The cloud's name.
            user: Who logs in: member, other or admin.
            password: A password, when it shall not be the right one.
            endpoint: Another way to the image service than the catalog's.
        """
        auth = {
            "auth_url": f"{self.endpoint}/identity/v3",
            "username": user,
            "password": password or f"{user}-password",
            "user_domain_name": "Default",
            "project_name": self._project(user),
            "project_domain_name": "Default",
        }
        override = {"image_endpoint_override": endpoint} if endpoint else {}
        self.clouds[name] = {"auth": auth, "region_name": "here", **override}
        with self.clouds_yaml.open("w") as stream:
            YAML(typ="safe").dump({"clouds": self.clouds}, stream)

    def _project(self, user: str) -> str:
        return f"not-{self.project}" if user == "other" else self.project

    def token(self, user: str) -> str:
        """Return a token of one of the three users."""
        return f"{user}:{self._project(user)}:{ROLES.get(user, COMMON_ROLES)}"

    def images(self, cloud: str = "member", **query: str) -> list[dict[str, Any]]:
        """List the images that one sees, by a client of its own."""
        answer = self._call("GET", "/v2/images", cloud, query)
        return list(answer.json()["images"])

    def image(self, image_id: str, cloud: str = "member") -> dict[str, Any]:
        """Fetch one image's record."""
        return dict(self._call("GET", f"/v2/images/{image_id}", cloud, {}).json())

    def members(self, image_id: str, cloud: str = "member") -> list[str]:
        """List the projects that an image is offered to."""
        answer = self._call("GET", f"/v2/images/{image_id}/members", cloud, {})
        return [member["member_id"] for member in answer.json()["members"]]

    def data(self, image_id: str, cloud: str = "member") -> bytes:
        """Download an image."""
        return self._call("GET", f"/v2/images/{image_id}/file", cloud, {}).content

    def patch(self, image_id: str, operations: list[dict[str, Any]], cloud: str = "member") -> None:
        """Change an image's record, as an operator would."""
        kind = "application/openstack-images-v2.1-json-patch"
        headers = {"X-Auth-Token": self.token(cloud), "Content-Type": kind}
        url = f"{self.endpoint}/v2/images/{image_id}"
        text = json.dumps(operations)
        answer = requests.patch(url, data=text, headers=headers, timeout=PATIENCE)
        answer.raise_for_status()

    def create(self, **fields: object) -> str:
        """Make a record without data, and return its id."""
        record: dict[str, Any] = {"disk_format": "qcow2", "container_format": "bare", **fields}
        headers = {"X-Auth-Token": self.token("member")}
        url = f"{self.endpoint}/v2/images"
        answer = requests.post(url, json=record, headers=headers, timeout=PATIENCE)
        answer.raise_for_status()
        return str(answer.json()["id"])

    def host_of_uploads(self) -> str:
        """Return the name by which this host's uploads know each other."""
        return (self.clouds_yaml.parent / "cache/uploads/host").read_text()

    @contextlib.contextmanager
    def another_host(self) -> Iterator[None]:
        """Upload as another host would, which has no lock in common with this one."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(uploads, "cache_directory", lambda: self.clouds_yaml.parent / "another")
            yield

    def delete(self, image_id: str) -> None:
        """Delete an image as the administrator."""
        self._call("DELETE", f"/v2/images/{image_id}", "admin", {})

    def _call(self, method: str, path: str, cloud: str, query: dict[str, str]) -> requests.Response:
        headers = {"X-Auth-Token": self.token(cloud)}
        url = self.endpoint + path
        answer = requests.request(method, url, headers=headers, params=query, timeout=PATIENCE)
        answer.raise_for_status()
        return answer


UNPROTECT = [{"op": "replace", "path": "/protected", "value": False}]


@contextlib.contextmanager
def cloud_at(
    endpoint: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GlanceCloud]:
    """Make a Glance the only thing that openstacksdk knows of."""
    for name in [name for name in os.environ if name.startswith("OS_")]:
        monkeypatch.delenv(name)
    for files in ("CONFIG_FILES", "SECURE_FILES"):  # those of the user and of the host
        monkeypatch.setattr(f"openstack.config.loader.{files}", [])
    monkeypatch.setenv("XDG_STATE_HOME", str(directory / "state"))
    monkeypatch.setattr(uploads, "cache_directory", lambda: directory / "cache")
    cloud = GlanceCloud(endpoint, directory / "clouds.yaml")
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(cloud.clouds_yaml))
    for name in ("member", "other", "admin"):
        cloud.add(name, user=name)
    try:
        yield cloud
    finally:
        for project in (cloud.project, f"not-{cloud.project}"):
            for hidden in ("false", "true"):
                for image in cloud.images("admin", owner=project, os_hidden=hidden):
                    if image["protected"]:
                        cloud.patch(image["id"], UNPROTECT, "admin")
                    cloud.delete(image["id"])


@pytest.fixture(scope="session")
def glance_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run one Glance for the session; the value is its endpoint."""
    with running_glance(tmp_path_factory.mktemp("glance")) as endpoint:
        yield endpoint


@pytest.fixture
def glance_cloud(
    glance_service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GlanceCloud]:
    """Give a test its own projects at the Glance, and a clouds.yaml that leads there."""
    with cloud_at(glance_service, tmp_path, monkeypatch) as cloud:
        yield cloud
