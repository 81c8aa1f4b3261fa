from __future__ import annotations

import base64
import configparser
import ssl
from pathlib import Path

from imagefactory.devcloud import configuration
from imagefactory.devcloud.place import HOST


def test_keys_are_made_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    configuration.keystone(tmp_path)
    keys = sorted([*tmp_path.glob("fernet/*"), *tmp_path.glob("credential/*")])
    assert [key.name for key in keys] == ["0", "1"] * 2
    before = [key.read_bytes() for key in keys]
    assert len({*before}) == 4
    assert {len(base64.urlsafe_b64decode(key)) for key in before} == {32}
    for key in (*keys, tmp_path / "tls.key"):
        assert key.stat().st_mode & 0o777 == 0o600
    configuration.keystone(tmp_path)
    assert [key.read_bytes() for key in keys] == before


def test_keystone_looks_for_no_keys_elsewhere(tmp_path: Path) -> None:
    """Receipts have keys as well, in /etc unless they are said to be here."""
    configuration.keystone(tmp_path)
    read = configparser.RawConfigParser()
    read.read(tmp_path / "keystone.conf")
    for kind in ("fernet_tokens", "fernet_receipts", "credential"):
        assert Path(read[kind]["key_repository"]).parent == tmp_path


def test_the_certificate_is_its_own_authority(tmp_path: Path) -> None:
    configuration.keystone(tmp_path)
    context = ssl.create_default_context(cafile=str(tmp_path / "tls.crt"))
    (known,) = context.get_ca_certs()
    assert known["subjectAltName"] == (("IP Address", HOST),)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
        tmp_path / "tls.crt", tmp_path / "tls.key"
    )


def test_what_glance_reads_holds_the_password_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    asking = configuration.authtoken("https://127.0.0.1:1/v3", Path("/ca"), "s%cret")
    configuration.glance(tmp_path, extra="user_storage_quota = 1MB", asking=asking)
    file = tmp_path / "glance-api.conf"
    assert file.stat().st_mode & 0o777 == 0o600
    read = configparser.RawConfigParser()
    read.read(file)
    assert read["keystone_authtoken"]["password"] == "s%cret"
    assert read["DEFAULT"]["user_storage_quota"] == "1MB"
    assert "keystonemiddleware" in (tmp_path / "glance-api-paste.ini").read_text()
    for store in configuration.STORES:
        assert (tmp_path / store).is_dir()
