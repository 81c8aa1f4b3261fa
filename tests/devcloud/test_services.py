from __future__ import annotations

from pathlib import Path

import pytest

from imagefactory.devcloud import services
from imagefactory.errors import CloudError


def test_a_port_that_somebody_has_gives_way_to_another() -> None:
    with services.listening() as first:
        port = first.getsockname()[1]
        with services.listening(port) as second:
            assert second.getsockname()[0] == "127.0.0.1"
            assert second.getsockname()[1] != port
    with services.listening(port) as again:
        assert services.url_of("glance", again) == f"http://127.0.0.1:{port}"
        assert services.url_of("keystone", again) == f"https://127.0.0.1:{port}/v3"


def test_a_service_that_does_not_answer_is_told_with_its_log(tmp_path: Path) -> None:
    with services.listening() as listener:
        url = services.url_of("glance", listener)
    (tmp_path / "gunicorn.log").write_text("why")
    with pytest.raises(CloudError, match="Glance does not answer") as caught:
        services.require_answer("glance", tmp_path, url, None)
    assert caught.value.log == tmp_path / "gunicorn.log"
