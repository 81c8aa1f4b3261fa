"""Digests of what a plan is made of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from imagefactory.data import sha256_of


def digest_of(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a value that JSON can hold."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def tree_digest(directory: Path) -> dict[str, str]:
    """Return what decides a file or a directory: contents, executable bits, targets of links."""
    if directory.is_file():
        return {"": _content_and_mode(directory)}
    return {
        str(path.relative_to(directory)): (
            f"-> {path.readlink()}" if path.is_symlink() else _content_and_mode(path)
        )
        for path in sorted(directory.rglob("*"))
        if "__pycache__" not in path.relative_to(directory).parts
        and (path.is_symlink() or path.is_file())
    }


def _content_and_mode(path: Path) -> str:
    return f"{sha256_of(path)} {'x' if path.stat().st_mode & 0o100 else '-'}"
