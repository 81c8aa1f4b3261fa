"""What Keystone and Glance are told: their configuration, keys and certificate."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from imagefactory.data import write_whole
from imagefactory.devcloud.place import HOST

REGION = "here"

SECRET = 0o600
"""The mode of files that hold passwords or keys."""

# Without synchronous writes a kill costs nothing, a power cut maybe the databases; with them a
# busy disk makes the first start minutes long. Long random passwords need no slow hashes.
_KEYSTONE = """\
[DEFAULT]
log_file = {directory}/keystone.log
{log}
[database]
connection = sqlite:///{directory}/keystone.sqlite
sqlite_synchronous = false
[identity]
password_hash_rounds = 4
[fernet_tokens]
key_repository = {directory}/fernet
[fernet_receipts]
key_repository = {directory}/fernet
[credential]
key_repository = {directory}/credential
[cache]
enabled = false
"""

_LOG = """\
log_rotation_type = size
max_logfile_size_mb = 10
max_logfile_count = 1"""

_GLANCE = """\
[DEFAULT]
enabled_backends = file:file,second:file
enabled_import_methods = [glance-direct,web-download,copy-image]
log_file = {directory}/glance.log
{log}
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
allowed_hosts = [{host}]
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

STORES = ("images", "second")
"""Directories of the two stores, in which each file is an image's data."""

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
paste.filter_factory = {identity}
[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory
"""

KEYSTONE_IS_ASKED = "keystonemiddleware.auth_token:filter_factory"

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


def authtoken(url: str, authority: Path, password: str) -> str:
    """Say how a Glance asks Keystone: by its URL and certificate, with admin's password."""
    return _AUTHTOKEN.format(url=url, authority=authority, password=password)


def keystone(directory: Path) -> None:
    """Write what Keystone reads; its keys are made once, its certificate each time."""
    directory.mkdir(mode=0o700, exist_ok=True)
    text = _KEYSTONE.format(directory=directory, log=_LOG)
    write_whole(directory / "keystone.conf", text.encode())
    # What `keystone-manage fernet_setup` and `credential_setup` leave: 0 is the staged key, the
    # highest number the primary one. Each would take three seconds.
    for repository in ("fernet", "credential"):
        keys = directory / repository
        keys.mkdir(mode=0o700, exist_ok=True)
        for name in ("0", "1"):
            if not (keys / name).exists():
                write_whole(keys / name, Fernet.generate_key(), SECRET)
    _certify(directory)


def glance(
    directory: Path, *, extra: str = "", identity: str = KEYSTONE_IS_ASKED, asking: str = ""
) -> None:
    """Write what Glance reads.

    Args:
        directory: Where database, images and logs live.
        extra: Lines for the [DEFAULT] section.
        identity: The filter that knows who comes, as paste names it.
        asking: How it asks Keystone, see `authtoken`.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    text = _GLANCE.format(directory=directory, log=_LOG, extra=extra, host=HOST) + asking
    write_whole(directory / "glance-api.conf", text.encode(), SECRET)
    pipeline = _PIPELINE.format(identity=identity)
    write_whole(directory / "glance-api-paste.ini", pipeline.encode())
    for store in (*STORES, "staging", "tasks"):
        (directory / store).mkdir(exist_ok=True)


def _certify(directory: Path) -> None:
    """Make a certificate for the loopback that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks that are put right
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_whole(directory / "tls.key", private, SECRET)
    public = certificate.public_bytes(serialization.Encoding.PEM)
    write_whole(directory / "tls.crt", public)
