"""Downloads that go on where they broke off, in this run or in the next one."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
import tenacity

from imagefactory.cache import Store
from imagefactory.vendor.errors import VendorError

KIND = "downloads"
"""The cache's kind of entries."""

BUDGET = 4 * 3600.0
"""Seconds for a download with all its attempts: 2 GB at 140 kB/s."""

_SILENCE = 60.0
"""Seconds without a byte that end an attempt."""

_ATTEMPTS = 5
"""How often in a row nothing may come before we give up."""

_PIECE = 1 << 16
"""Bytes at once; of a piece that broke off nothing is kept."""
_SMALL = 1 << 24
"""Bytes of the largest file that is read whole: checksums, a signature."""

_SIZE, _TIME = "Content-Length", "Last-Modified"

_BROKEN = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)

_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (requests.exceptions.SSLError, "the server's certificate is not trusted here"),
    (requests.Timeout, f"the server was silent for {_SILENCE:.0f} s"),
    (requests.ConnectionError, "the server cannot be reached, or broke the connection"),
    (requests.exceptions.ChunkedEncodingError, "the connection broke"),
    (requests.exceptions.InvalidURL, "that is no address"),
    (requests.exceptions.InvalidSchema, "it leads to an address that is not http or https"),
    (requests.TooManyRedirects, "it leads in a circle"),
)

Progress = Callable[[int, int], None]
"""Told bytes so far and in all (0: the server does not say)."""


@dataclass(frozen=True)
class Fetched:
    """A file of others: where it lies, what it is called, and whether its way was safe.

    Attributes:
        file: In the cache, or where the user has it.
        name: The last part of its address.
        private: Nobody on the way could have changed it: it was local, or came by TLS alone.
    """

    file: Path
    name: str
    private: bool


class _TransientError(Exception):
    """The wire broke or the server has trouble; what came so far is kept."""


def is_address(source: str) -> bool:
    """Whether something is fetched, and not a file of this host's."""
    return re.match(r"(?i)https?://", source) is not None


def name_of(source: str) -> str:
    """Return what the file is called, without what follows a question mark.

    Raises:
        VendorError: The address names no file.
    """
    path = urlsplit(source).path if is_address(source) else source
    name = unquote(path).rpartition("/")[2]
    if not name or name in {".", ".."}:
        raise VendorError(f"{public(source)} names no file")
    return name


def public(source: str) -> str:
    """Return an address without what may be secret in it: a password, a signed query."""
    if not is_address(source):
        return source
    parts = urlsplit(source)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def fetch(source: str, cache: Path, progress: Progress = lambda done, total: None) -> Fetched:
    """Return a large file: one of this host's as it lies there, others out of the cache.

    A download that broke off goes on where it was, as long as the server names the same size
    and time of it; whether the whole of it is what was published, only its checksum can tell.

    Args:
        source: A path, or an address (http, https).
        cache: The directory of all caches; an `in_use` block of it lasts.
        progress: Told how far it is.

    Raises:
        VendorError: There is no such file, or it could not be fetched within the budget.
    """
    if not is_address(source):
        return _local(source)
    name = name_of(source)
    store = _Downloads(cache, KIND)
    with _translated(source), _Server(source) as server:
        key = server.key
        with store.making(key) as found:
            file = found or store.add(key, server.bring(store.part(key), progress))
        return Fetched(file, name, server.private)


def forget(fetched: Fetched, cache: Path) -> None:
    """Throw a download away that is not what it should be; a user's own file stays."""
    if fetched.file.is_relative_to(cache / KIND):
        fetched.file.unlink(missing_ok=True)


def read(source: str) -> tuple[bytes, bool]:
    """Return a small file's content, and whether nobody on the way could have changed it.

    Raises:
        VendorError: There is none, it could not be fetched, or it is not small.
    """
    if is_address(source):
        with _translated(source), _Server(source) as server:
            content = server.small()
            private = server.private
    else:
        with _local(source).file.open("rb") as stream:
            content, private = stream.read(_SMALL + 1), True
    if len(content) > _SMALL:
        raise VendorError(f"{public(source)} is larger than {_SMALL >> 20} MiB")
    return content, private


def _local(source: str) -> Fetched:
    file = Path(source)
    if "://" in source:
        raise VendorError(f"{source} cannot be fetched", hint="say a path, or http:// or https://")
    if not file.is_file():
        raise VendorError(f"there is no file {source}", hint="say a path, or an address (https://)")
    return Fetched(file.absolute(), name_of(source), private=True)


class _Downloads(Store):
    """Finished downloads, and beside each what there is of one that broke off."""

    def part(self, key: str) -> Path:
        """Return where a download goes on; it counts as used now."""
        self.directory.mkdir(parents=True, exist_ok=True)
        part = self.path(f"{key}.part")
        part.touch()
        return part


class _Server:
    """One file at a server; asked once for its size and time, then for what is missing."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._session = requests.Session()
        self._first: requests.Response | None = None
        self._told: dict[str, str] = {}
        self.private = True

    def __enter__(self) -> _Server:
        self._first = _patiently(self._ask)
        known = self._first.headers
        self._told = {name: known[name] for name in (_SIZE, _TIME) if name in known}
        return self

    def __exit__(self, *_: object) -> None:
        if self._first is not None:
            self._first.close()
        self._session.close()

    @property
    def key(self) -> str:
        """A name for exactly this file, in the cache: mirrors keep its size and its time."""
        told = [public(self._address), *(self._told.get(name, "") for name in (_SIZE, _TIME))]
        digest = hashlib.sha256("\n".join(told).encode()).hexdigest()
        name = re.sub(r"[^A-Za-z0-9._+-]", "_", name_of(self._address))[-100:]
        return f"{digest[:24]}-{name}".removesuffix(".lock")

    def small(self) -> bytes:
        """Return the content, or a little more of it than is called small."""
        answer, self._first = self._first or self._ask(), None
        content = b""
        with answer, _wire():
            for piece in answer.iter_content(_PIECE):
                content += piece
                if len(content) > _SMALL:
                    break
        return content

    def bring(self, part: Path, progress: Progress) -> Path:
        """Bring what is missing of a file, in as many attempts as each bring something."""
        until = time.monotonic() + BUDGET
        while not _patiently(self._attempt, part, progress):
            if time.monotonic() > until:
                raise _TransientError(f"it was not there within {BUDGET:.0f} s")
        return part

    def _attempt(self, part: Path, progress: Progress) -> bool:
        """Bring a piece; return whether it was the last. Nothing at all is an error."""
        size = int(self._told.get(_SIZE, "0"))
        begun = part.stat().st_size
        if size and begun == size:
            return True
        # A server that says neither size nor time may have another file by now.
        goes_on = 0 < begun < size and _TIME in self._told
        answer, self._first = self._first, None
        if answer is None or goes_on:
            if answer is not None:
                answer.close()
            answer = self._ask({"Range": f"bytes={begun}-"} if goes_on else {})
        came = 0
        with answer, part.open("ab") as stream:
            if answer.status_code != requests.codes.partial_content:
                begun = 0
                stream.truncate(0)
            try:
                with _wire():
                    for piece in answer.iter_content(_PIECE):
                        stream.write(piece)
                        came += len(piece)
                        progress(begun + came, size)
            except _TransientError:
                if not came:
                    raise
                return False
        if size and begun + came != size:
            raise _TransientError(f"it ended after {begun + came} of {size} bytes")
        return True

    def _ask(self, headers: Mapping[str, str] = MappingProxyType({})) -> requests.Response:
        # As it lies there: what is compressed on the way has another size than it says.
        plain = {"Accept-Encoding": "identity", **headers}
        with _wire():
            answer = self._session.get(
                self._address, headers=plain, stream=True, timeout=(_SILENCE, _SILENCE)
            )
        way = [one.url for one in (*answer.history, answer)]
        self.private = self.private and all(url.startswith("https://") for url in way)
        if answer.ok:
            return answer
        answer.close()
        told = f"the server answered {answer.status_code} {answer.reason}"
        if answer.status_code >= 500 or answer.status_code == requests.codes.too_many_requests:
            raise _TransientError(told)
        raise VendorError(
            f"{public(self._address)}: {told}",
            hint="is the address right? It is that of the file itself",
        )


_patiently = tenacity.Retrying(
    retry=tenacity.retry_if_exception_type(_TransientError),
    wait=tenacity.wait_random_exponential(max=10),
    stop=tenacity.stop_after_attempt(_ATTEMPTS),
    reraise=True,
)


@contextlib.contextmanager
def _wire() -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise _TransientError(_in_words(error)) from None


@contextlib.contextmanager
def _translated(source: str) -> Iterator[None]:
    try:
        yield
    except _TransientError as error:
        raise VendorError(
            f"{public(source)} could not be fetched: {error}",
            hint="is the address right, and the server reachable? Said again, a download goes on "
            "where it was",
        ) from None
    except requests.RequestException as error:
        raise VendorError(f"{public(source)} could not be fetched: {_in_words(error)}") from None


def _in_words(error: requests.RequestException) -> str:
    """Tell a library's error in words of ours: its own hold the address, maybe a secret in it."""
    return next((words for kind, words in _WORDS if isinstance(error, kind)), type(error).__name__)
