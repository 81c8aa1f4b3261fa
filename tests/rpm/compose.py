"""One RPM out of Debian's packages, a recipe and an overlay."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tests.rpm.debian import Deb
from tests.rpm.recipes import OVERLAY, Recipe
from tests.rpm.spec import Entry, Rpm, Script

RELEASE = "fc44"
_OWN_VERSION = "44"
_UNITS = "/usr/lib/systemd/system/"
_NOT_ROOT = "(pre) setup"


@dataclass(frozen=True)
class Composer:
    """Puts the files of RPMs into a tree, and tells what the RPMs are.

    Attributes:
        tree: All files of all RPMs.
        architecture: RPM's name of it.
        excluded: Globs of paths that no package has.
        recipes: All of them, by the names of their RPMs.
        debs: All packages by their names.
        provided: What `deb(...)` may ask for.
        ignored: What it need not ask for.
    """

    tree: Path
    architecture: str
    excluded: tuple[str, ...]
    recipes: Mapping[str, Recipe]
    debs: Mapping[str, Deb]
    provided: frozenset[str]
    ignored: frozenset[str]

    def compose(
        self,
        name: str,
        recipe: Recipe,
        debs: Sequence[Deb] = (),
        made: Mapping[str, Path] | None = None,
        **more: Any,
    ) -> Rpm:
        """Put a package together.

        Args:
            name: Its name.
            recipe: What it has beside the files of its debs.
            debs: The packages that it is made of.
            made: Path -> a file that was made for it.
            more: Fields of `Rpm` that are not the first deb's.
        """
        found = {entry.path: entry for entry in self._unpacked(recipe, debs)}
        found.update((entry.path, entry) for entry in self._own(name, recipe))
        for path, file in (made or {}).items():
            shutil.copyfile(file, self._cleared(path))
            found[path] = Entry(path, 0o644)
        for path, text in recipe.modes.items():
            found[path] = _owned(path, text, found[path].kind)
        entries = tuple(found[path] for path in sorted(found))
        version, release = debs[0].upstream if debs else (_OWN_VERSION, "1")
        native = any(deb.architecture != "all" for deb in debs) or bool(recipe.architectures)
        rpm = Rpm(
            name=name,
            version=version,
            architecture=self.architecture if native else "noarch",
            release=f"{release}.{RELEASE}",
            requires=tuple(self._requires(recipe, debs, entries)),
            provides=(*recipe.provides, *_provided(debs)),
            entries=entries,
            scripts=tuple(self._scripts(recipe, entries)),
        )
        return replace(rpm, **more)

    def _unpacked(self, recipe: Recipe, debs: Sequence[Deb]) -> Iterator[Entry]:
        for deb in debs:
            yield from deb.unpack(self.tree, self._placing(recipe, deb.name, recipe.only))
        for name, globs in recipe.also.items():
            yield from self.debs[name].unpack(self.tree, self._placing(recipe, "", globs))

    def _placing(
        self, recipe: Recipe, deb: str, only: tuple[str, ...]
    ) -> Callable[[str], str | None]:
        """Tell where a package's paths go."""
        given = [glob for other in self.recipes.values() for glob in other.also.get(deb, ())]
        left_out = _matcher((*self.excluded, *recipe.drop, *given))
        taken = _matcher(only or ("*",))
        # Of two packages that say different things of one directory, rpm takes neither.
        standard = self.recipes["filesystem"].directories

        def place(path: str) -> str | None:
            if path in standard or left_out(path) or not taken(path):
                return None
            for old, new in recipe.move.items():
                if path.startswith(old):
                    return new + path[len(old) :]
            return path

        return place

    def _own(self, name: str, recipe: Recipe) -> Iterator[Entry]:
        for path, text in recipe.directories.items():
            (self.tree / path[1:]).mkdir(parents=True, exist_ok=True)
            yield _owned(path, text, "directory")
        for path, target in recipe.links.items():
            self._cleared(path).symlink_to(target)
            yield Entry(path)
        for path, source in recipe.copies.items():
            shutil.copyfile(self.tree / source[1:], self._cleared(path))
            yield Entry(path, 0o644, config=path.startswith("/etc/"))
        for path, glob in recipe.join.items():
            parts = sorted(self.tree.glob(glob[1:]))
            self._cleared(path).write_bytes(b"".join(part.read_bytes() for part in parts))
            yield Entry(path, 0o644)
        overlay = OVERLAY / name
        for file in sorted(overlay.rglob("*")):
            if file.is_file():
                path = f"/{file.relative_to(overlay)}"
                shutil.copyfile(file, self._cleared(path))
                mode = 0o755 if file.stat().st_mode & 0o100 else 0o644
                yield Entry(path, mode, config=path.startswith("/etc/"))
        for path, changes in recipe.edit.items():
            text = (self.tree / path[1:]).read_text(encoding="utf-8")
            for old, new in changes.items():
                assert old in text, f"{name}: {path} has no {old!r}"
                text = text.replace(old, new)
            (self.tree / path[1:]).write_text(text, encoding="utf-8")
        for path, text in recipe.ghosts.items():
            self._cleared(path).touch()
            yield _owned(path, text, "ghost")

    def _cleared(self, path: str) -> Path:
        file = self.tree / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        return file

    def _requires(
        self, recipe: Recipe, debs: Sequence[Deb], entries: Iterable[Entry]
    ) -> Iterator[str]:
        yield from recipe.requires
        if any(not {"root"} >= {entry.owner, entry.group} for entry in entries):
            yield _NOT_ROOT  # rpm looks the numbers up in the tree
        own = set(_provided(debs))
        asked = dict.fromkeys(group for deb in debs for group in deb.depends)
        for group in asked:
            met = [
                wish for name in group if (wish := f"deb({name})") in own or name in self.provided
            ]
            if not met:
                assert self.ignored & {*group}, f"{debs[0].name}: nothing provides {group}"
            elif not own & {*met} and not self.ignored & {*group}:
                yield met[0] if len(met) == 1 else f"({' or '.join(met)})"

    def _scripts(self, recipe: Recipe, entries: Iterable[Entry]) -> Iterator[Script]:
        for section, text in recipe.scripts.items():
            kind, _, interpreter = section.partition(" ")
            condition = recipe.conditions.get(kind, "")
            yield Script(kind, text, interpreter or "/bin/sh", condition)
        units = [entry.path.removeprefix(_UNITS) for entry in entries if self._is_enabled(entry)]
        if units and "post" not in recipe.scripts:
            preset = f"systemctl --no-reload preset {' '.join(units)} || :"
            text = f"if [ $1 -eq 1 ] && [ -x /usr/bin/systemctl ]; then\n    {preset}\nfi\n"
            yield Script("post", text)

    def _is_enabled(self, entry: Entry) -> bool:
        """Whether a file is a unit that can be enabled by itself."""
        if not re.fullmatch(rf"{_UNITS}[^/@]+\.(service|socket|timer|path|target)", entry.path):
            return False
        file = self.tree / entry.path[1:]
        return not file.is_symlink() and "[Install]" in file.read_text(encoding="utf-8")


def _provided(debs: Iterable[Deb]) -> list[str]:
    return [f"deb({name})" for deb in debs for name in (deb.name, *deb.provides)]


def _matcher(globs: Sequence[str]) -> Callable[[str], bool]:
    return lambda path: any(fnmatchcase(path, glob) for glob in globs)


def _owned(path: str, text: str, kind: Any) -> Entry:
    mode, owner, group = text.split()
    return Entry(path, int(mode, 8), owner, group, kind, config=kind == "file" and "/etc/" in path)
