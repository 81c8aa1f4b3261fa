from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vendor.servers import Publisher, publisher


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Publisher]:
    with publisher(tmp_path / "published") as served:
        yield served
