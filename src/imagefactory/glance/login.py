"""Clouds of clouds.yaml and the devcloud, and logging in to them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from keystoneauth1 import exceptions as auth_errors
from openstack import exceptions as sdk_errors
from openstack.config import loader
from openstack.config.cloud_region import CloudRegion
from openstack.config.loader import OpenStackConfig
from openstack.connection import Connection
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from imagefactory import __version__
from imagefactory.devcloud.place import OFFERED, UP, Place, go_direct
from imagefactory.errors import CloudError, ConfigError
from imagefactory.glance.client import Glance
from imagefactory.glance.failures import UnknownCloudError, clean, describe

_NO_CLOUD = "defaults"
"""What openstacksdk calls the empty configuration that it makes up when it finds none."""

_SECRETS = re.compile(r"pass|secret|token|key", re.IGNORECASE)


def check_configured(cloud: str, region: str | None = None) -> None:
    """Refuse a cloud or a region that nothing describes; no cloud is asked.

    Raises:
        UnknownCloudError: No such cloud is configured.
        ConfigError: The configuration cannot be read.
        CloudError: It is the devcloud, which does not run.
    """
    _region(cloud, region)


@contextlib.contextmanager
def connect(cloud: str, timeout: float, region: str | None = None) -> Iterator[Glance]:
    """Open a connection to the image service of a cloud of clouds.yaml.

    The name ``envvars`` stands for the OS_* variables of the environment.

    Args:
        cloud: Its name.
        timeout: Seconds of silence after which the service counts as gone.
        region: One of the cloud's regions; unset: the one that clouds.yaml names.

    Raises:
        UnknownCloudError: No such cloud is configured.
        ConfigError: The configuration cannot be read.
    """
    chosen = _region(cloud, region)
    auth = chosen.config.get("auth") or {}
    secrets = tuple(
        str(value) for name, value in auth.items() if value and _SECRETS.search(str(name))
    )
    try:
        connection = Connection(config=chosen)
    except (auth_errors.ClientException, sdk_errors.SDKException) as error:
        what, hint = describe(error)
        raise CloudError(
            f"the cloud {cloud!r} {what}: {clean(str(error), secrets)}", hint=hint
        ) from None
    with contextlib.closing(connection):
        yield Glance(connection, cloud, timeout, secrets)


def _region(cloud: str, region: str | None = None) -> CloudRegion:
    try:
        config = OpenStackConfig(app_name="imagefactory", app_version=__version__)
        known = sorted(set(config.get_cloud_names()) - {_NO_CLOUD})
        if cloud in known:
            return _choose(config, cloud, region)
        if cloud in OFFERED:
            _refuse_broken_files()
            return _choose(_of_the_devcloud(cloud), cloud, region)
    except (auth_errors.ClientException, sdk_errors.SDKException) as error:
        what, hint = describe(error)
        if region and isinstance(error, sdk_errors.ConfigException):
            hint = (
                f"a cloud with several regions names them in clouds.yaml, `regions: [{region}, "
                "...]` in the place of region_name"
            )
        raise ConfigError(
            f"the cloud {cloud!r} {what}: {clean(str(error), ())}", hint=hint
        ) from None
    _refuse_broken_files()
    if Place.default().running():
        known += OFFERED
    raise UnknownCloudError(cloud, known, config.config_filename)


def _of_the_devcloud(cloud: str) -> OpenStackConfig:
    """Find a cloud of the devcloud, which needs no line in anybody's clouds.yaml."""
    place = Place.default()
    if not place.running():
        raise CloudError(f"the cloud {cloud!r} does not run", hint=f"start it: `{UP}`")
    go_direct()
    return OpenStackConfig(
        config_files=[str(place.clouds_yaml)],
        secure_files=[],
        vendor_files=[],
        load_envvars=False,
        app_name="imagefactory",
        app_version=__version__,
    )


def _choose(config: OpenStackConfig, cloud: str, region: str | None) -> CloudRegion:
    if region is None:  # the key itself would mean: none
        return config.get_one(cloud=cloud)
    return config.get_one(cloud=cloud, region_name=region)


def _refuse_broken_files() -> None:
    """Tell of a clouds.yaml that the SDK has passed over because it is no YAML."""
    named = os.environ.get("OS_CLIENT_CONFIG_FILE")
    for path in map(Path, [*([named] if named else []), *loader.CONFIG_FILES]):
        try:
            YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        except MarkedYAMLError as error:  # its text may quote a password: only the place is told
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(
                f"{path}:{line}: not readable as YAML", hint="correct the file"
            ) from None
        except (OSError, YAMLError, UnicodeDecodeError):
            continue
