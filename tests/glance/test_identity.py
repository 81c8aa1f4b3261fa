"""Logging in to a real Keystone, in every way that clouds.yaml knows, without telling secrets."""

from __future__ import annotations

import json
import logging
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from ruamel.yaml import YAML

from imagefactory.errors import CloudError, ConfigError
from imagefactory.glance import upload as uploads
from imagefactory.glance.newimage import NewImage
from imagefactory.glance.target import Rotation
from tests.factory import MINUTES
from tests.glance.identity import CANARY, Identity, identity
from tests.glance.images import qcow2
from tests.glance.test_upload import build, new_image, upload

__all__ = ["identity"]

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(10 * MINUTES),
    pytest.mark.filterwarnings("ignore:.*will be removed in a future release"),  # openstacksdk
]

Configure = Callable[..., None]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> NewImage:
    return new_image(qcow2(tmp_path_factory.mktemp("disk") / "minimal.qcow2", mebibytes=1))


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Write a clouds.yaml, and a secure.yaml, that are the only ones that openstacksdk finds."""
    for name in [name for name in os.environ if name.startswith("OS_")]:
        monkeypatch.delenv(name)
    secure = tmp_path / "secure.yaml"
    monkeypatch.setattr("openstack.config.loader.CONFIG_FILES", [])
    monkeypatch.setattr("openstack.config.loader.SECURE_FILES", [str(secure)])
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    monkeypatch.setenv("OS_CLIENT_SECURE_FILE", str(secure))
    monkeypatch.setattr(uploads, "cache_directory", lambda: tmp_path / "cache")

    def write(entry: dict[str, Any], secret: dict[str, Any] | None = None) -> None:
        for file, content in ((tmp_path / "clouds.yaml", entry), (secure, secret)):
            if content is not None:
                with file.open("w") as stream:
                    YAML(typ="safe").dump({"clouds": {"mine": content}}, stream)

    return write


@pytest.fixture(autouse=True)
def clean(identity: Identity) -> Iterator[None]:
    """Leave no image in the project."""
    yield
    with identity.connect() as cloud:
        for hidden in (False, True):
            for image in cloud.image.images(owner=identity.project, is_hidden=hidden):
                cloud.image.delete_image(image.id)


def password(cloud: Identity) -> tuple[dict[str, Any], dict[str, Any] | None]:
    return cloud.entry(cloud.auth()), None


def password_in_secure_yaml(cloud: Identity) -> tuple[dict[str, Any], dict[str, Any] | None]:
    auth = cloud.auth()
    return cloud.entry(auth), {"auth": {"password": auth.pop("password")}}


def application_credential(cloud: Identity) -> tuple[dict[str, Any], dict[str, Any] | None]:
    with cloud.connect() as builder:
        keystone: Any = builder.identity
        user = builder.current_user_id
        made = keystone.create_application_credential(user, name=os.urandom(4).hex())
        auth = {
            "auth_url": cloud.url,
            "application_credential_id": made.id,
            "application_credential_secret": made.secret,
        }
    return cloud.entry(auth, auth_type="v3applicationcredential"), None


def token(cloud: Identity) -> tuple[dict[str, Any], dict[str, Any] | None]:
    with cloud.connect() as builder:
        known = str(builder.auth_token)
        auth = {"auth_url": cloud.url, "token": known, "project_id": cloud.project}
    return cloud.entry(auth, auth_type="v3token"), None


@pytest.mark.parametrize("way", [password, password_in_secure_yaml, application_credential, token])
def test_every_way_of_logging_in_brings_the_image(
    identity: Identity, image: NewImage, configure: Configure, way: Callable[..., Any]
) -> None:
    configure(*way(identity))
    done = upload(image, cloud="mine")
    with identity.connect() as cloud:
        record = cloud.image.get_image(done.id)
    assert (record.status, record.owner_id) == ("active", identity.project)
    assert not upload(image, cloud="mine").sent


def test_the_environment_is_a_cloud(
    identity: Identity, image: NewImage, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure({})
    for name, value in identity.auth().items():
        monkeypatch.setenv(f"OS_{name.upper()}", value)
    monkeypatch.setenv("OS_CACERT", str(identity.authority))
    monkeypatch.setenv("OS_REGION_NAME", "here")
    assert upload(image, cloud="envvars").sent


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"password": f"wrong-{CANARY}"}, "refused the credentials"),
        ({"project_id": "0" * 32}, "refused the credentials"),
        ({"username": "nobody"}, "refused the credentials"),
    ],
)
def test_wrong_credentials_are_told_without_them(
    identity: Identity,
    image: NewImage,
    configure: Configure,
    change: dict[str, str],
    message: str,
) -> None:
    configure(identity.entry(identity.auth(**change)))
    with pytest.raises(CloudError, match=message) as caught:
        upload(image, cloud="mine")
    assert CANARY not in told(caught.value)


def test_a_certificate_that_nobody_vouches_for_is_told(
    identity: Identity, image: NewImage, configure: Configure
) -> None:
    entry = identity.entry(identity.auth())
    del entry["cacert"]
    configure(entry)
    with pytest.raises(CloudError, match="has a certificate that is not trusted here") as caught:
        upload(image, cloud="mine")
    assert "`cacert`" in caught.value.hint
    assert CANARY not in told(caught.value)


def test_who_may_only_read_is_told_so(
    identity: Identity, image: NewImage, configure: Configure
) -> None:
    configure(identity.entry(identity.auth("reader")))
    with pytest.raises(CloudError, match="403") as caught:
        upload(image, cloud="mine")
    assert "role" in caught.value.hint
    assert "half image" not in caught.value.message


def test_an_unknown_region_is_told(
    identity: Identity, image: NewImage, configure: Configure
) -> None:
    configure(identity.entry(identity.auth()))
    with pytest.raises((CloudError, ConfigError)) as caught:
        upload(image, cloud="mine", region="nowhere")
    assert CANARY not in told(caught.value)


def test_nothing_secret_is_logged_however_much_is_logged(
    identity: Identity, image: NewImage, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    configure(*password(identity))
    with caplog.at_level(logging.DEBUG):
        done = upload(image, cloud="mine")
    assert caplog.records, "the libraries have logged"
    assert CANARY not in caplog.text
    assert CANARY not in repr(done)
    with identity.connect() as cloud:
        assert CANARY not in str(cloud.image.get_image(done.id).to_dict())


@pytest.mark.parametrize("administrator", [True, False])
def test_an_image_that_servers_are_made_of_is_not_deleted(
    identity: Identity,
    image: NewImage,
    configure: Configure,
    tmp_path: Path,
    administrator: bool,
) -> None:
    """Nova is a stand-in here that knows one question; where it is, the real Keystone says."""
    configure(*password(identity))
    older = upload(build(image, tmp_path, 1), cloud="mine")
    asked: list[dict[str, list[str]]] = []

    class Compute(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            asked.append(query)
            refused = "all_tenants" in query and not administrator
            servers = [{"id": "1"}] if query["image"] == [older.id] else []
            content = json.dumps({"servers": servers}).encode()
            self.send_response(403 if refused else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Compute) as server,
        identity.service("compute", f"http://127.0.0.1:{server.server_port}/v2.1"),
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        newer = upload(build(image, tmp_path, 2), cloud="mine", rotation=Rotation(keep=0))
        server.shutdown()
    assert any(older.id in text and "servers are made of it" in text for text in newer.left)
    assert len(asked) == (1 if administrator else 2)
    with identity.connect() as cloud:
        assert cloud.image.get_image(older.id).status == "active"

    last = upload(build(image, tmp_path, 2), cloud="mine", rotation=Rotation(keep=0))
    assert any(step.startswith(f"delete {older.id}") for step in last.steps)


def told(error: BaseException) -> str:
    """Everything that a person or a log could see of an error."""
    hint = getattr(error, "hint", "")
    return "".join(traceback.format_exception(error)) + hint
