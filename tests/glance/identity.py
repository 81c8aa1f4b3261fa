"""A real Keystone with TLS, and a Glance that believes it, on the loopback."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openstack
import pytest

from imagefactory.run import need, run, started
from tests.glance.cloud import HERE, running_glance, service_venv

CANARY = "correct-horse-canary-staple"
"""The password of every user: it may be found nowhere but in clouds.yaml."""

_CONFIGURATION = """\
[DEFAULT]
log_file = {directory}/keystone.log
[database]
connection = sqlite:///{directory}/keystone.sqlite
[fernet_tokens]
key_repository = {directory}/fernet
[credential]
key_repository = {directory}/credential
[cache]
enabled = false
"""

_AUTHTOKEN = """\
[keystone_authtoken]
www_authenticate_uri = {url}
auth_url = {url}
cafile = {authority}
auth_type = password
username = admin
password = {password}
project_name = admin
user_domain_id = default
project_domain_id = default
service_token_roles_required = true
"""

_REGION = "here"


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
        return {"auth": auth, "region_name": _REGION, "cacert": str(self.authority), **more}

    @contextlib.contextmanager
    def service(self, kind: str, url: str) -> Iterator[None]:
        """Have the catalog name one more service while a block runs."""
        with self.connect("admin") as cloud:
            keystone: Any = cloud.identity
            service = keystone.create_service(name=kind, type=kind)
            keystone.create_endpoint(
                service_id=service.id, interface="public", region_id=_REGION, url=url
            )
            try:
                yield
            finally:
                keystone.delete_service(service.id)

    @contextlib.contextmanager
    def region(self, name: str, directory: Path) -> Iterator[str]:
        """Have one more region, with a Glance of its own, while a block runs; yield its URL."""
        with (
            running_glance(directory, authtoken=self.authtoken) as endpoint,
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
    def authtoken(self) -> str:
        """How a Glance asks this Keystone."""
        return _AUTHTOKEN.format(url=self.url, authority=self.authority, password=CANARY)

    def connect(
        self, user: str = "builder", region: str = _REGION
    ) -> openstack.connection.Connection:
        """Log in by a client of one's own."""
        auth = self.auth(user)
        if user == "admin":
            auth |= {"project_name": "admin", "project_domain_id": "default"}
            del auth["project_id"]
        entry = {**self.entry(auth), "region_name": region}
        return openstack.connect(**entry, load_yaml_config=False, load_envvars=False)


@contextlib.contextmanager
def running_identity(directory: Path) -> Iterator[Identity]:
    """Run Keystone and Glance in a fresh directory, with a project and two users."""
    venv = service_venv("keystone")
    (directory / "keystone.conf").write_text(_CONFIGURATION.format(directory=directory))
    _certify(directory)
    manage: list[str | Path] = [venv / "bin/keystone-manage", "--config-dir", directory]
    log = directory / "manage.log"
    run([*manage, "db_sync"], log=log, timeout=120)
    me, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    for keys in ("fernet_setup", "credential_setup"):
        run([*manage, keys, "--keystone-user", me, "--keystone-group", group], log=log)
    command: list[str | Path] = [venv / "bin/python", HERE / "service.py", "keystone", directory]
    with (
        (directory / "service.log").open("wb") as output,
        started(command, stderr=output) as process,
    ):
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, f"Keystone did not start: {(directory / 'gunicorn.log').read_text()}"
        url = f"https://127.0.0.1:{port}/v3"
        first = ["--bootstrap-password", CANARY, "--bootstrap-region-id", _REGION]
        for interface in ("public", "internal"):  # the latter is where Glance asks
            first += [f"--bootstrap-{interface}-url", url]
        run([*manage, "bootstrap", *first], log=log)
        authority = directory / "tls.crt"
        glance = directory / "glance"
        glance.mkdir()
        nobody = Identity(url, authority, "")
        with running_glance(glance, authtoken=nobody.authtoken) as endpoint:
            yield Identity(url, authority, _people(nobody, endpoint))


def _certify(directory: Path) -> None:
    """Make a certificate for the loopback that is its own authority."""
    openssl = need("openssl", "openssl")
    words: list[str | Path] = [openssl, "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]
    words += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=127.0.0.1"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1"]
    words += ["-keyout", str(directory / "tls.key"), "-out", str(directory / "tls.crt")]
    run(words)


def _people(identity: Identity, glance: str) -> str:
    with identity.connect("admin") as cloud:
        keystone: Any = cloud.identity
        project = keystone.create_project(name="factory", domain_id="default")
        for user, role in (("builder", "member"), ("reader", "reader")):
            person = keystone.create_user(
                name=user, password=CANARY, domain_id="default", default_project_id=project.id
            )
            known = keystone.find_role(role)
            keystone.assign_project_role_to_user(project.id, person.id, known.id)
        service = keystone.create_service(name="glance", type="image")
        keystone.create_endpoint(
            service_id=service.id, interface="public", region_id=_REGION, url=glance
        )
        return str(project.id)


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identity]:
    """Run them for the session."""
    with running_identity(tmp_path_factory.mktemp("identity")) as found:
        yield found
