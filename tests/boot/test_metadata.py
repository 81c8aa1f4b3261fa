from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefactory.boot.instance import InstanceData
from imagefactory.boot.metadata import Requests, serve


@pytest.fixture
def service(instance: InstanceData, tmp_path: Path) -> Iterator[tuple[Requests, str]]:
    with serve(instance, tmp_path / "requests.log", ("127.0.0.1", 0)) as (requests, port):
        yield requests, f"http://127.0.0.1:{port}"


def fetch(url: str, method: str = "GET") -> tuple[int, str, str]:
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def test_the_service_answers_as_nova(service: tuple[Requests, str], instance: InstanceData) -> None:
    _, url = service
    status, kind, text = fetch(f"{url}/openstack/latest/meta_data.json")
    assert (status, kind) == (200, "application/json; charset=UTF-8")
    assert json.loads(text)["uuid"] == instance.uuid
    assert fetch(f"{url}/latest/meta-data/hostname")[2] == instance.hostname
    assert fetch(f"{url}/latest/user-data?x=1")[2] == instance.user_data


@pytest.mark.parametrize(
    ("path", "method"), [("/openstack/latest/nothing", "GET"), ("/latest/api/token", "PUT")]
)
def test_what_it_does_not_have_is_404(
    service: tuple[Requests, str], path: str, method: str
) -> None:
    assert fetch(service[1] + path, method)[0] == 404


def test_a_head_request_has_no_body(service: tuple[Requests, str]) -> None:
    assert fetch(f"{service[1]}/latest/user-data", "HEAD")[::2] == (200, "")


def test_every_request_is_kept_as_evidence(service: tuple[Requests, str]) -> None:
    requests, url = service
    fetch(f"{url}/openstack")
    fetch(f"{url}/nothing")
    assert requests.paths == ["/openstack", "/nothing"]
    lines = requests.log.read_text().splitlines()
    assert "GET /openstack 200" in lines[0]
    assert "GET /nothing 404" in lines[1]
