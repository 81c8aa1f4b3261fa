"""A thin client of Glance's API over openstacksdk's session: every refusal tells its own text.

The SDK's image methods drop the body of a refused upload and answer with stale states, so
only its configuration, authentication and connection are used here.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

import requests
from keystoneauth1 import exceptions as auth_errors
from openstack import exceptions as sdk_errors
from openstack.connection import Connection

from imagefactory.errors import CloudError, UnknownNameError
from imagefactory.glance.failures import PASSING, SERVER_ERROR, RefusedError, clean, describe
from imagefactory.glance.stored import MARK_IMAGE, Stored

_DELETE_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds between the attempts to delete an image that the cloud is still busy with."""

_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_PAGE = 100
"""Images that a list has at once; a cloud may give fewer (api_limit_max)."""


class Body(Protocol):
    """What is sent as an image's data: pieces of known length in all."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[bytes]: ...


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
    secrets: tuple[str, ...] = field(default=(), repr=False)

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
                known = {image.name for image in self.visible()}
                raise UnknownNameError("image in the cloud", name, sorted(known))
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

    def starts_others(self, image_id: str) -> bool:
        """Whether an image is the kernel or the ramdisk of another one that we see."""
        return any(
            True
            for key in ("kernel_id", "ramdisk_id")
            for hidden in ("false", "true")
            for _ in self._pages({key: image_id, "os_hidden": hidden, "limit": "1"})
        )

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
                busy = error.status == HTTPStatus.CONFLICT or error.status >= SERVER_ERROR
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
            what, hint = describe(error)
            endpoint = self.connection.config.get_endpoint("image")
            words = str(error) + (f" ({endpoint})" if endpoint else "")
            failure = CloudError(
                f"{action}: the cloud {self.cloud!r} {what}: {clean(words, self.secrets)}",
                hint=hint,
            )
            failure.transient = isinstance(error, PASSING)
            raise failure from None
