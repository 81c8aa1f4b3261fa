from __future__ import annotations

import sys
from pathlib import Path

import pytest

from imagefactory.cache import in_use
from imagefactory.devcloud import programs
from imagefactory.errors import HostError, PackageError
from imagefactory.progress import Stages


def test_everything_is_pinned() -> None:
    lines = programs.REQUIREMENTS.read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all("==" in pin for pin in pins)
    assert {"glance", "gunicorn", "keystone"} <= {pin.split("==")[0] for pin in pins}
    names = [pin.split("==")[0].lower() for pin in pins]
    assert len(names) == len({*names})


def test_a_python_without_venv_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with in_use(tmp_path), pytest.raises(HostError) as caught:
        programs.obtain(tmp_path, tmp_path / "log", Stages())
    assert "python3-venv" in caught.value.hint
    assert caught.value.log == tmp_path / "log"
    assert not list((tmp_path / programs.KIND).iterdir())


@pytest.mark.system
def test_a_package_that_pip_does_not_find_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "requirements.txt").write_text("imagefactory-no-such-package==1\n")
    monkeypatch.setattr(programs, "REQUIREMENTS", tmp_path / "requirements.txt")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    said: list[str] = []
    stages = Stages(lambda stage, _: said.append(stage))
    with in_use(tmp_path), pytest.raises(PackageError, match="no-such-package") as caught:
        programs.obtain(tmp_path, tmp_path / "log", stages)
    assert said == ["install"]
    assert "ERROR: " in (tmp_path / "log").read_text()
    assert caught.value.log == tmp_path / "log"
    assert not list((tmp_path / programs.KIND).iterdir())
