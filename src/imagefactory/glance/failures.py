"""What a cloud refuses, and what goes wrong on the way to it, in words that help."""

from __future__ import annotations

import logging
import re
from html import unescape
from http import HTTPStatus

import requests
from keystoneauth1 import exceptions as auth_errors
from openstack import exceptions as sdk_errors

from imagefactory.errors import CloudError, UnknownNameError

# Failures are told in our own errors; without a handler Python would print their warnings too.
for _library in ("keystoneauth", "openstack"):
    logging.getLogger(_library).addHandler(logging.NullHandler())

_LONGEST_ANSWER = 500
"""Characters of the cloud's own words in an error."""

SERVER_ERROR = HTTPStatus.INTERNAL_SERVER_ERROR

_LOG_HINT = "the log of the cloud's image service tells more"

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

PASSING = (
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


class UnknownCloudError(UnknownNameError):
    """A cloud was named that no clouds.yaml and no OS_* variable describes."""

    def __init__(self, name: str, known: list[str], file: str | None) -> None:
        super().__init__("cloud", name, known)
        self.hint += f" (from {file})" if file else " (there is no readable clouds.yaml)"


class WrongStateError(CloudError):
    """A cloud has something otherwise than it should; it may be right the next time."""

    transient = True

    def __init__(self, message: str) -> None:
        super().__init__(message, hint=_LOG_HINT)


class RefusedError(CloudError):
    """The image service answered with an error; the message holds its own words."""

    def __init__(self, action: str, response: requests.Response) -> None:
        self.status: int = response.status_code
        super().__init__(
            f"{action}: the cloud answered {self.status} {_words(response)}".rstrip(),
            hint=_STATUS_HINTS.get(self.status, _LOG_HINT),
        )
        self.transient = self.status in _PASSING_STATUS or self.status >= SERVER_ERROR


def describe(error: Exception) -> tuple[str, str]:
    """Return what a cloud did, for ``the cloud X ...``, and what to try."""
    return next((what, hint) for kind, what, hint in _CONNECTION_HINTS if isinstance(error, kind))


def clean(text: str, secrets: tuple[str, ...]) -> str:
    """Take secrets out of a text, those in addresses too, and shorten it."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return re.sub(r"//[^/@\s]+@", "//***@", text)[:_LONGEST_ANSWER]


def _words(response: requests.Response) -> str:
    """Return the sentence in an answer, be it HTML, JSON or plain text."""
    text = re.sub(r"<(head|title)>.*?</\1>", " ", response.text, flags=re.DOTALL)
    text = " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())
    text = text.removeprefix(f"{response.status_code} ").removeprefix(response.reason or "")
    return (text.strip() or response.reason or "")[:_LONGEST_ANSWER]
