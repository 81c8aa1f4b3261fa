"""Start, stop and look at the devcloud.

What lasts is in the directory of its `Place`: the services' databases, images, keys and logs, and

- ``state.json``: written last, so what was begun and not finished is known by its absence, and
  made anew;
- ``clouds.yaml``: for clients; it stays right while the cloud is down, and says the new ports
  when others have taken the old ones.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import secrets
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ruamel.yaml import YAML

from imagefactory.cache import disk_usage, in_use
from imagefactory.data import write_whole
from imagefactory.devcloud import configuration, people, programs, services
from imagefactory.devcloud.place import ADMIN, NAME, SERVICES, Place, go_direct, holder
from imagefactory.errors import CloudError, CommandError, ConfigError
from imagefactory.progress import Stages
from imagefactory.run import end_released, release

_MEMBER = "builder"
_LOOK_SECONDS = 10.0
"""How long a service that runs may take to answer, when somebody looks."""


@dataclass(frozen=True)
class Status:
    """What a look at the devcloud shows: sizes in bytes, None where nothing is known."""

    running: bool
    silent: tuple[str, ...]
    """The services that do not answer."""
    keystone: str | None
    glance: str | None
    clouds_yaml: str
    directory: str
    images: int
    size: int


@dataclass(frozen=True)
class _State:
    """What is remembered of a devcloud that once ran."""

    urls: Mapping[str, str] = field(default_factory=dict)
    passwords: Mapping[str, str] = field(default_factory=dict)
    project: str = ""
    programs: str = ""
    """The venv that its databases are known to suit."""

    @property
    def ports(self) -> dict[str, int]:
        return {name: int(url.split(":")[2].split("/")[0]) for name, url in self.urls.items()}

    @classmethod
    def read(cls, place: Place) -> _State | None:
        try:
            return cls(**json.loads(_state_file(place).read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            raise ConfigError(
                f"{_state_file(place)} is damaged: without it the devcloud's passwords are lost",
                hint="`imagefactory devcloud down --delete` removes what there is, to begin anew",
            ) from None

    def write(self, place: Place) -> None:
        text = json.dumps(asdict(self), indent=2)
        write_whole(_state_file(place), text.encode(), configuration.SECRET)


def _state_file(place: Place) -> Path:
    return place.directory / "state.json"


def up(place: Place, cache: Path, stages: Stages) -> bool:
    """Start the devcloud; return whether that was needed.

    Args:
        place: Where it is.
        cache: The directory of all caches.
        stages: Are told what is done.

    Raises:
        HostError, PackageError: The programs could not be installed.
        CloudError: A service does not answer.
    """
    go_direct()
    with place.alone(_waiting(stages)), in_use(cache):
        state = _State.read(place)
        if state and all(_answers(place, state, name) for name in SERVICES):
            return False
        _halt(place)  # one may be left of two
        if state is None:
            shutil.rmtree(place.directory, ignore_errors=True)
            state = _State(passwords={name: secrets.token_urlsafe(24) for name in (NAME, ADMIN)})
        place.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        venv = programs.obtain(cache, place.directory / "install.log", stages)
        try:
            _start(place, venv, state, stages)
        except BaseException:
            _halt(place)
            raise
        return True


def down(place: Place, stages: Stages, *, delete: bool = False) -> bool:
    """Stop the devcloud; return whether anything ran.

    Args:
        place: Where it is.
        stages: Are told what is done.
        delete: Remove all that it has, images and users too.
    """
    if not place.directory.exists():
        return False
    with place.alone(_waiting(stages)):
        ran = _halt(place)
        if delete:
            shutil.rmtree(place.directory)
    return ran


def look(place: Place) -> Status:
    """Look at the devcloud; it runs if its processes do and answer."""
    state = _State.read(place)
    urls = state.urls if state else {}
    glance = place.service("glance")
    images = {file.name for store in configuration.STORES for file in (glance / store).glob("*-*")}
    silent = tuple(name for name in SERVICES if not (state and _answers(place, state, name)))
    return Status(
        running=not silent,
        silent=silent,
        keystone=urls.get("keystone"),
        glance=urls.get("glance"),
        clouds_yaml=str(place.clouds_yaml),
        directory=str(place.directory),
        images=len(images),
        size=disk_usage(place.directory) if place.directory.exists() else 0,
    )


def _waiting(stages: Stages) -> Callable[[], None]:
    return lambda: stages.announce("wait", "another command starts or stops the devcloud")


def _answers(place: Place, state: _State, name: str) -> bool:
    return bool(
        holder(place.service(name))
        and name in state.urls
        and services.answers(state.urls[name], _authority(place), _LOOK_SECONDS)
    )


def _halt(place: Place) -> bool:
    """Stop what runs; return whether anything did."""
    holders = [functools.partial(holder, place.service(name)) for name in SERVICES]
    with ThreadPoolExecutor(len(holders)) as pool:  # each takes a second or two
        return any([*pool.map(end_released, holders)])


def _authority(place: Place) -> Path:
    return place.service("keystone") / "tls.crt"


def _start(place: Place, venv: Path, state: _State, stages: Stages) -> None:
    with contextlib.ExitStack() as stack:
        listeners = {
            name: stack.enter_context(services.listening(state.ports.get(name, 0)))
            for name in SERVICES
        }
        urls = {name: services.url_of(name, listener) for name, listener in listeners.items()}
        _configure(place, urls["keystone"], state.passwords[ADMIN])
        new = _State(urls, state.passwords, state.project, programs.key())
        _prepare(place, venv, state, new, stages)
        with stages.stage("start", " and ".join(urls.values())):
            processes = [
                stack.enter_context(services.serving(venv, name, place.service(name), listener))
                for name, listener in listeners.items()
            ]
            for name, url in urls.items():
                services.require_answer(name, place.service(name), url, _authority(place))
        if urls != state.urls:
            with stages.stage("people", "users, a project, the catalog"):
                new = _introduce(place, new)
        _tell_clients(place, new)
        new.write(place)
        for process in processes:
            release(process)


def _configure(place: Place, keystone: str, password: str) -> None:
    configuration.keystone(place.service("keystone"))
    asking = configuration.authtoken(keystone, _authority(place), password)
    configuration.glance(place.service("glance"), asking=asking)


def _prepare(place: Place, venv: Path, old: _State, new: _State, stages: Stages) -> None:
    """Bring databases and Keystone's own place in the catalog up to date."""
    other_programs = old.programs != new.programs
    moved = old.urls.get("keystone") != new.urls["keystone"]
    if not (other_programs or moved):
        return

    def keystone() -> None:
        directory = place.service("keystone")
        if other_programs:
            services.make_keystone_database(venv, directory)
        if moved:
            services.bootstrap(venv, directory, new.urls["keystone"], new.passwords[ADMIN])

    def glance() -> None:
        if other_programs:
            services.make_glance_database(venv, place.service("glance"))

    with (
        stages.stage("prepare", "databases of Keystone and Glance"),
        ThreadPoolExecutor(2) as pool,
    ):
        for task in [pool.submit(keystone), pool.submit(glance)]:
            try:
                task.result()
            except CommandError as error:
                raise CloudError(
                    "the databases of Keystone and Glance could not be made or brought up to date",
                    hint="the log tells why; to begin anew: `imagefactory devcloud down --delete`",
                    log=error.log,
                ) from None


def _introduce(place: Place, state: _State) -> _State:
    """Tell Keystone who there is, and where Glance is; return with the project's id."""
    with contextlib.closing(people.connect(_clouds(place, state)[ADMIN])) as admin:
        project = state.project
        if not project:
            project = people.populate(admin, {_MEMBER: (state.passwords[NAME], "member")})
        people.announce_glance(admin, state.urls["glance"])
    return _State(state.urls, state.passwords, project, state.programs)


def _clouds(place: Place, state: _State) -> dict[str, dict[str, object]]:
    url, passwords, authority = state.urls["keystone"], state.passwords, _authority(place)
    project = {"project_id": state.project}
    return {
        NAME: people.entry(url, authority, _MEMBER, passwords[NAME], project),
        ADMIN: people.entry(url, authority, "admin", passwords[ADMIN], people.ADMIN_PROJECT),
    }


def _tell_clients(place: Place, state: _State) -> None:
    text = io.BytesIO()
    YAML(typ="safe").dump({"clouds": _clouds(place, state)}, text)
    write_whole(place.clouds_yaml, text.getvalue(), configuration.SECRET)
