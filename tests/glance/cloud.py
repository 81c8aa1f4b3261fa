"""A real Glance on the loopback, as pytest fixtures.

Import ``glance_service`` and ``glance_cloud`` into a conftest.py, or name this module in
``pytest_plugins``. The service is glance from PyPI (requirements-glance.txt) in a venv of its
own below ``$XDG_CACHE_HOME/imagefactory-tests``, or ``$IMAGEFACTORY_TEST_CACHE``; it is made
once, 30 to 60 seconds. Glance itself is up within three seconds.

gunicorn's gthread worker is chosen for how it treats an upload that breaks off: uvicorn's
lets it become active, wsgiref's stores the framing of chunks as data.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from filelock import FileLock
from ruamel.yaml import YAML

from imagefactory.glance import upload as uploads
from imagefactory.run import run, started
from tests.glance.service import COMMON_ROLES, ROLES

HERE = Path(__file__).resolve().parent
PATIENCE = 60.0
"""Seconds that the service may take for any one answer."""

_CONFIGURATION = """\
[DEFAULT]
enabled_backends = file:file,second:file
enabled_import_methods = [glance-direct,web-download,copy-image]
log_file = {directory}/glance.log
{extra}
[database]
connection = sqlite:///{directory}/glance.sqlite
sqlite_synchronous = false
[glance_store]
default_backend = file
[file]
filesystem_store_datadir = {directory}/images
[second]
filesystem_store_datadir = {directory}/second
[import_filtering_opts]
allowed_hosts = [127.0.0.1]
allowed_ports = []
disallowed_ports = [1]
[os_glance_staging_store]
filesystem_store_datadir = {directory}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {directory}/tasks
[oslo_concurrency]
lock_path = {directory}
[paste_deploy]
config_file = {directory}/glance-api-paste.ini
"""

_PIPELINE = """\
[composite:glance-api]
paste.composite_factory = glance.api:root_app_factory
/: api
[composite:api]
paste.composite_factory = glance.api:pipeline_factory
default = versionnegotiation identity context rootapp
[composite:rootapp]
paste.composite_factory = glance.api:root_app_factory
/: apiversions
/v2: apiv2app
[app:apiversions]
paste.app_factory = glance.api.versions:create_resource
[app:apiv2app]
paste.app_factory = glance.api.v2.router:API.factory
[filter:versionnegotiation]
paste.filter_factory = glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory
[filter:identity]
paste.filter_factory = service:identity
[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory
"""


def service_venv(name: str) -> Path:
    """Return the venv that holds a service; the first to ask makes it, others wait."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    base = Path(os.environ.get("IMAGEFACTORY_TEST_CACHE") or Path(cache) / "imagefactory-tests")
    base.mkdir(parents=True, exist_ok=True)
    requirements = HERE / f"requirements-{name}.txt"
    pins = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    venv = base / f"{name}-{pins}"
    with FileLock(base / f"{name}.lock"):
        if not (venv / "complete").exists():
            shutil.rmtree(venv, ignore_errors=True)
            run([sys.executable, "-m", "venv", venv])
            run([venv / "bin/pip", "install", "--quiet", "-r", requirements], timeout=900)
            (venv / "complete").touch()
    return venv


@contextlib.contextmanager
def running_glance(directory: Path, extra: str = "", authtoken: str = "") -> Iterator[str]:
    """Run a Glance in a fresh directory and hand out its endpoint.

    Args:
        directory: Where database, images and logs live.
        extra: Lines for the [DEFAULT] section of its configuration.
        authtoken: How it asks a real Keystone; empty: it believes what a token says.
    """
    venv = service_venv("glance")
    configuration = _CONFIGURATION.format(directory=directory, extra=extra)
    (directory / "glance-api.conf").write_text(configuration + authtoken)
    believer = "keystonemiddleware.auth_token:filter_factory" if authtoken else "service:identity"
    pipeline = _PIPELINE.replace("service:identity", believer)
    (directory / "glance-api-paste.ini").write_text(pipeline)
    for store in ("images", "second", "staging", "tasks"):
        (directory / store).mkdir()
    run(
        [venv / "bin/glance-manage", "--config-file", directory / "glance-api.conf", "db_sync"],
        log=directory / "db_sync.log",
    )
    command: list[str | Path] = [venv / "bin/python", HERE / "service.py", "glance", directory]
    with (
        (directory / "service.log").open("wb") as log,
        started(command, stderr=log, env={"PYTHONPATH": str(HERE)}) as process,
    ):
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, f"Glance did not start: {(directory / 'gunicorn.log').read_text()}"
        endpoint = f"http://127.0.0.1:{port}"
        # The port is open before the worker is ready; the first answer waits for it.
        requests.get(endpoint, timeout=PATIENCE)
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
