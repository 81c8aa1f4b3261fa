"""A thin client of Glance's API over openstacksdk's session: every refusal tells its own text.

The SDK's image methods drop the body of a refused upload and answer with stale states, so
only its configuration, authentication and connection are used here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

import requests
from keystoneauth1 import exceptions as auth_errors
from openstack import exceptions as sdk_errors
from openstack.config import loader
from openstack.config.cloud_region import CloudRegion
from openstack.config.loader import OpenStackConfig
from openstack.connection import Connection
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from imagefactory import __version__
from imagefactory.errors import CloudError, ConfigError, UnknownNameError
from imagefactory.glance.stored import MARK_IMAGE, Stored

# Failures are told in our own errors; without a handler Python would print their warnings too.
for _library in ("keystoneauth", "openstack"):
    logging.getLogger(_library).addHandler(logging.NullHandler())

_LONGEST_ANSWER = 500
"""Characters of the cloud's own words in an error."""

_NO_CLOUD = "defaults"
"""What openstacksdk calls the empty configuration that it makes up when it finds none."""

_DELETE_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds between the attempts to delete an image that the cloud is still busy with."""

_SERVER_ERROR = HTTPStatus.INTERNAL_SERVER_ERROR

_STATUS_HINTS = {
    401: "check the credentials in clouds.yaml, and whether they have expired",
    403: "the role of these credentials does not allow it",
    404: "is this the endpoint of an image service?",
    409: "another program changes the same image",
    413: "a limit of the cloud is reached: delete old images or ask for a larger quota",
    415: "the cloud inspected the file and found another format than declared",
    503: "the cloud's image store is full or out of order; try again later",
}

_CONNECTION_HINTS: tuple[tuple[type[Exception], str, str], ...] = (
    (
        auth_errors.Unauthorized,
        "refused the credentials",
        "check user, password, project and domains in clouds.yaml (`openstack token issue`)",
    ),
    (
        auth_errors.MissingRequiredOptions,
        "cannot be logged in to, something is missing in clouds.yaml",
        "see https://docs.openstack.org/openstacksdk/latest/user/config/configuration.html",
    ),
    (
        auth_errors.SSLError,
        "has a certificate that is not trusted here",
        "set `cacert` in clouds.yaml to the file of its authority",
    ),
    (
        auth_errors.ConnectTimeout,
        "did not answer in time",
        "is the endpoint right, and reachable from here?",
    ),
    (
        auth_errors.ConnectFailure,
        "cannot be reached, or broke the connection",
        "is the endpoint right, and reachable from here?",
    ),
    *(
        (
            discovery,
            "has no image service that can be reached",
            "is the endpoint right, and reachable from here?",
        )
        for discovery in (auth_errors.DiscoveryFailure, sdk_errors.ServiceDiscoveryException)
    ),
    (
        auth_errors.EndpointNotFound,
        "offers no image service to these credentials",
        "check region_name and interface in clouds.yaml (`openstack catalog list`)",
    ),
    (
        auth_errors.ClientException,
        "cannot be talked to",
        "check the cloud's entry in clouds.yaml",
    ),
    (sdk_errors.SDKException, "cannot be talked to", "check the cloud's entry in clouds.yaml"),
)

_PASSING = (
    auth_errors.ConnectFailure,
    auth_errors.ConnectTimeout,
    auth_errors.RetriableConnectionFailure,
    auth_errors.UnknownConnectionError,
    auth_errors.DiscoveryFailure,
    sdk_errors.ServiceDiscoveryException,
)
"""Errors of the wire, which may be over in a moment."""

_PASSING_STATUS = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.CONFLICT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)

_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_PAGE = 100
"""Images that a list has at once; a cloud may give fewer (api_limit_max)."""

_SECRETS = re.compile(r"pass|secret|token|key", re.IGNORECASE)


class UnknownCloudError(UnknownNameError):
    """A cloud was named that no clouds.yaml and no OS_* variable describes."""

    def __init__(self, name: str, known: list[str], file: str | None) -> None:
        super().__init__("cloud", name, known)
        self.hint += f" (from {file})" if file else " (there is no readable clouds.yaml)"


class RefusedError(CloudError):
    """The image service answered with an error; the message holds its own words."""

    def __init__(self, action: str, response: requests.Response) -> None:
        self.status: int = response.status_code
        super().__init__(
            f"{action}: the cloud answered {self.status} {_words(response)}".rstrip(),
            hint=_STATUS_HINTS.get(self.status, "the log of the cloud's image service tells more"),
        )
        self.transient = self.status in _PASSING_STATUS or self.status >= _SERVER_ERROR


class Body(Protocol):
    """What is sent as an image's data: a stream of known length."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[bytes]: ...

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, at most so many; none at the end."""


@dataclass(frozen=True)
class Glance:
    """An image service that one is logged in to.

    Args:
        connection: openstacksdk's connection.
        cloud: The cloud's name, for messages.
        timeout: Seconds of silence after which the service counts as gone.
        secrets: Words that no message may hold.
    """

    connection: Connection
    cloud: str
    timeout: float
    secrets: tuple[str, ...] = ()

    def find(self, filters: Mapping[str, str]) -> list[Stored]:
        """List the images of one's own project with these properties and fields, hidden ones too.

        Other projects' public images, and to an administrator all images, are visible too; a
        login without a project (``admin_token``) has none that are certainly its own.
        """
        with self._told("the list of images"):
            project = self.connection.current_project_id
        if not project:
            return []
        query = {**filters, "owner": project, "limit": str(_PAGE)}
        return [
            Stored.of(record)
            for hidden in ("false", "true")
            for record in self._pages({**query, "os_hidden": hidden})
        ]

    def visible(self, names: Sequence[str] = ()) -> list[Stored]:
        """Return images that one sees, by their names or ids; without any, those with our marks.

        Raises:
            UnknownNameError: There is no such image.
        """
        if not names:
            every = map(Stored.of, self._pages({"limit": str(_PAGE)}))
            return [image for image in every if MARK_IMAGE in image.properties]
        found: list[Stored] = []
        for name in names:
            query = {"id": name} if _UUID.fullmatch(name) else {"name": name}
            images = [Stored.of(record) for record in self._pages(query)]
            if not images:
                raise UnknownNameError("image in the cloud", name, [])
            found += images
        return found

    def _pages(self, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        marker: dict[str, str] = {}
        while True:
            answer = self._call("GET", "/images", "the list of images", params={**query, **marker})
            images = answer.json()["images"]
            yield from images
            if "next" not in answer.json():
                return
            marker = {"marker": images[-1]["id"]}

    def get(self, image_id: str) -> Stored:
        """Fetch an image's record."""
        answer = self._call("GET", f"/images/{image_id}", f"image {image_id}")
        return Stored.of(answer.json())

    def create(self, fields: Mapping[str, object]) -> None:
        """Create the record of an image that has no data yet."""
        self._call("POST", "/images", f"creating {fields['name']}", json=dict(fields))

    def send(self, image_id: str, data: Body, store: str | None = None) -> None:
        """Send an image's data to a store; none: the cloud's default one."""
        self._send(f"/images/{image_id}/file", data, {"X-Image-Meta-Store": store} if store else {})

    def stage(self, image_id: str, data: Body) -> None:
        """Send an image's data to where the cloud can import it from."""
        self._send(f"/images/{image_id}/stage", data, {})

    def start_import(self, image_id: str, method: Mapping[str, str], stores: Sequence[str]) -> None:
        """Let the cloud import an image's data; what becomes of it stands in its record."""
        body: dict[str, Any] = {"method": dict(method)}
        if stores:
            body |= {"stores": list(stores), "all_stores_must_succeed": True}
        action = f"importing image {image_id} by {method['name']}"
        self._call("POST", f"/images/{image_id}/import", action, json=body)

    def stores(self) -> tuple[str, ...]:
        """Name the cloud's stores; none if it has but one that has no name."""
        try:
            answer = self._call("GET", "/info/stores", "the list of stores")
        except RefusedError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return ()
            raise
        found = answer.json()["stores"]
        return tuple(one["id"] for one in found if not one.get("read-only"))

    def _send(self, path: str, data: Body, headers: Mapping[str, str]) -> None:
        """Send a stream, once: no retry, redirect or new login may send it again."""
        self._call(
            "PUT",
            path,
            "sending the data",
            data=data,
            headers={
                "Content-Type": "application/octet-stream",
                "Accept": "",
                # Lets some stores allocate the space at once (Glance's data upload API).
                "X-OpenStack-Image-Size": str(len(data)),
                **headers,
            },
            connect_retries=0,
            status_code_retries=0,
            allow_reauth=False,
            redirect=False,
        )

    def amend(self, image_id: str, operations: Sequence[Mapping[str, Any]], action: str) -> None:
        """Change an image's record: a JSON patch (RFC 6902), all of it or nothing."""
        self._call(
            "PATCH",
            f"/images/{image_id}",
            action,
            json=list(operations),
            headers={"Content-Type": "application/openstack-images-v2.1-json-patch"},
        )

    def activate(self, image_id: str, *, active: bool) -> None:
        """Deactivate an image, so that only administrators can read it, or take that back."""
        verb = "reactivate" if active else "deactivate"
        self._call("POST", f"/images/{image_id}/actions/{verb}", f"{verb} image {image_id}")

    def offer(self, image_id: str, projects: Sequence[str]) -> None:
        """Make projects members of a shared image; those that are stay what they are."""
        path = f"/images/{image_id}/members"
        answer = self._call("GET", path, f"the members of image {image_id}")
        known = {member["member_id"] for member in answer.json()["members"]}
        for project in projects:
            if project not in known:
                action = f"offering image {image_id} to the project {project}"
                self._call("POST", path, action, json={"member": project})

    def in_use(self, image_id: str) -> bool | None:
        """Whether servers are made of an image; None: this cloud has nobody to ask.

        An administrator is told of all servers, others of their own project's.
        """
        try:
            compute = self.connection.session.get_endpoint(
                service_type="compute",
                interface=self.connection.config.get_interface("compute"),
                region_name=self.connection.config.get_region_name("compute"),
            )
        except (auth_errors.ClientException, sdk_errors.SDKException):
            compute = None
        if compute is None:
            return None
        # Compute API, "List Servers"; only administrators may ask for all projects.
        for everybody in ({"all_tenants": "1"}, {}):
            query = {"image": image_id, "limit": "1", **everybody}
            action = f"asking which servers are made of image {image_id}"
            with self._told(action):
                answer = self.connection.session.get(
                    f"{compute.rstrip('/')}/servers",
                    params=query,
                    timeout=self.timeout,
                    raise_exc=False,
                )
            if answer.status_code != HTTPStatus.FORBIDDEN:
                break
        if answer.status_code >= HTTPStatus.MULTIPLE_CHOICES:
            raise RefusedError(action, answer)
        return bool(answer.json()["servers"])

    def delete(self, image_id: str) -> None:
        """Delete an image; one that is not there any more is no error.

        Glance may still be busy with an upload that broke off a moment ago, and then answers
        409 or 500 (its database is locked by the other request).
        """
        for pause in (*_DELETE_PAUSES, None):
            try:
                self._call("DELETE", f"/images/{image_id}", f"deleting image {image_id}")
            except RefusedError as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    return
                busy = error.status == HTTPStatus.CONFLICT or error.status >= _SERVER_ERROR
                if pause is None or not busy:
                    raise
                time.sleep(pause)
            else:
                return

    def _call(self, method: str, path: str, action: str, **options: Any) -> requests.Response:
        with self._told(action):
            response = self.connection.image.request(
                path, method, timeout=self.timeout, raise_exc=False, **options
            )
        # A redirect is followed by the session; one that is left is an endpoint gone astray.
        if response.status_code >= HTTPStatus.MULTIPLE_CHOICES:
            raise RefusedError(action, response)
        return response

    @contextlib.contextmanager
    def _told(self, action: str) -> Iterator[None]:
        try:
            yield
        except (auth_errors.ClientException, sdk_errors.SDKException) as error:
            what, hint = _describe(error)
            endpoint = self.connection.config.get_endpoint("image")
            words = str(error) + (f" ({endpoint})" if endpoint else "")
            failure = CloudError(
                f"{action}: the cloud {self.cloud!r} {what}: {_clean(words, self.secrets)}",
                hint=hint,
            )
            failure.transient = isinstance(error, _PASSING)
            raise failure from None


def check_configured(cloud: str, region: str | None = None) -> None:
    """Refuse a cloud or a region that nothing describes; no cloud is asked.

    Raises:
        UnknownCloudError: No such cloud is configured.
        ConfigError: The configuration cannot be read.
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
        what, hint = _describe(error)
        raise CloudError(
            f"the cloud {cloud!r} {what}: {_clean(str(error), secrets)}", hint=hint
        ) from None
    with contextlib.closing(connection):
        yield Glance(connection, cloud, timeout, secrets)


def _region(cloud: str, region: str | None = None) -> CloudRegion:
    try:
        config = OpenStackConfig(app_name="imagefactory", app_version=__version__)
        known = sorted(set(config.get_cloud_names()) - {_NO_CLOUD})
        if cloud in known:
            if region is None:  # the key itself would mean: none
                return config.get_one(cloud=cloud)
            return config.get_one(cloud=cloud, region_name=region)
    except (auth_errors.ClientException, sdk_errors.SDKException) as error:
        what, hint = _describe(error)
        raise ConfigError(
            f"the cloud {cloud!r} {what}: {_clean(str(error), ())}", hint=hint
        ) from None
    _refuse_broken_files()
    raise UnknownCloudError(cloud, known, config.config_filename)


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


def _describe(error: Exception) -> tuple[str, str]:
    return next((what, hint) for kind, what, hint in _CONNECTION_HINTS if isinstance(error, kind))


def _clean(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return re.sub(r"//[^/@\s]+@", "//***@", text)[:_LONGEST_ANSWER]


def _words(response: requests.Response) -> str:
    """Return the sentence in an answer, be it HTML, JSON or plain text."""
    text = re.sub(r"<(head|title)>.*?</\1>", " ", response.text, flags=re.DOTALL)
    text = " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())
    text = text.removeprefix(f"{response.status_code} ").removeprefix(response.reason or "")
    return (text.strip() or response.reason or "")[:_LONGEST_ANSWER]
