"""What cloud-init says of its own work, in the files it leaves in /run/cloud-init.

``status.json`` and ``result.json`` exist since 0.7; ``recoverable_errors`` came with 23.4. What
``cloud-init status`` makes of them differs from release to release, the files do not.
"""

from __future__ import annotations

import json
import re
from typing import Any

from imagefactory.boot.facts import Expected, Facts, SkippedError, require

HARMLESS = frozenset({"DEBUG", "INFO", "DEPRECATED", "WARNING"})
"""Levels of recoverable errors that are told, but fail nothing."""


def check_work(facts: Facts, expected: Expected) -> str:
    """Done, and nothing went wrong on the way."""
    text = facts.get("cloud-init", "")
    if not text:
        raise SkippedError("the guest has no cloud-init")
    found = re.search(r"status: (\w+)", text)
    require(found and found[1] == "done", f"cloud-init: {text}")
    status, result = _read(facts, "cloud-init-status"), _read(facts, "cloud-init-result")
    errors = [str(error) for error in result.get("errors") or ()]
    told: list[str] = []
    for name, stage in status.items():
        if isinstance(stage, dict):
            errors += [f"{name}: {error}" for error in stage.get("errors") or ()]
            recovered = stage.get("recoverable_errors") or {}
            for level, messages in recovered.items():
                (told if level in HARMLESS else errors).extend(
                    f"{name}: {level}: {message}" for message in messages
                )
    require(not errors, f"cloud-init met errors: {'; '.join(dict.fromkeys(errors))}")
    return "; ".join(["done", *dict.fromkeys(told)])


def check_datasource(facts: Facts, expected: Expected) -> str:
    """It found what the cloud offered, and nothing else."""
    if not facts.get("cloud-init"):
        raise SkippedError("the guest has no cloud-init")
    seen = str(_read(facts, "cloud-init-result").get("datasource"))
    wanted = expected.datasources
    require(seen.startswith(wanted), f"the datasource is {seen}, not {' or '.join(wanted)}")
    return seen


def _read(facts: Facts, name: str) -> dict[str, Any]:
    text = facts.get(name, "")
    try:
        content = json.loads(text)["v1"]
    except (ValueError, LookupError, TypeError):
        content = None
    require(isinstance(content, dict), f"{name} is not what cloud-init writes: {text[:200]!r}")
    return dict(content)
