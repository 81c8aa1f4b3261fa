from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from imagefactory.boot.checks import run_checks
from imagefactory.boot.instance import InstanceData
from tests.boot.test_checks import GOOD, expected, verdicts

FOUND = "DataSourceConfigDrive [net,ver=2][source=/dev/sr0]"


def told(
    status: str = "done",
    *,
    datasource: str = FOUND,
    errors: list[str] | None = None,
    **stage: Any,
) -> dict[str, str]:
    """Facts of a guest whose cloud-init says so; 22.4's files unless a stage has more."""
    stages = {
        "stage": None,
        "datasource": datasource,
        "init": {"errors": [], "start": 1.0, **stage},
    }
    return {
        **GOOD,
        "cloud-init": f"status: {status}\nboot_status_code: enabled-by-generator",
        "cloud-init-status": json.dumps({"v1": stages}),
        "cloud-init-result": json.dumps({"v1": {"datasource": datasource, "errors": errors or []}}),
    }


def look(
    instance: InstanceData, facts: dict[str, str], *offered: str
) -> dict[str, tuple[str, str]]:
    wanted = replace(expected(instance), datasources=offered or ("DataSourceConfigDrive",))
    return {check.name: (check.verdict, check.detail) for check in run_checks(facts, wanted)}


def test_a_guest_where_all_went_well_passes(instance: InstanceData) -> None:
    seen = look(instance, told())
    assert seen["cloud-init"] == ("passed", "done")
    assert seen["datasource"] == ("passed", FOUND)


@pytest.mark.parametrize("status", ["error", "running", "disabled", "not"])
def test_anything_but_done_fails(instance: InstanceData, status: str) -> None:
    assert look(instance, told(status))["cloud-init"][0] == "failed"


@pytest.mark.parametrize(
    "facts",
    [
        told(errors=["('locale', ...)"]),
        told(errors=["('locale', ...)"]) | {"cloud-init": "status: done"},
        told(recoverable_errors={"ERROR": ["('locale', ...)"]}),
        told(recoverable_errors={"CRITICAL": ["('locale', ...)"]}),
    ],
    ids=["result", "stage", "recoverable", "critical"],
)
def test_an_error_fails_although_cloud_init_is_done(
    instance: InstanceData, facts: dict[str, str]
) -> None:
    verdict, detail = look(instance, facts)["cloud-init"]
    assert verdict == "failed"
    assert "locale" in detail


def test_warnings_are_told_and_fail_nothing(instance: InstanceData) -> None:
    facts = told(recoverable_errors={"DEPRECATED": ["old key"], "WARNING": ["odd value"]})
    verdict, detail = look(instance, facts)["cloud-init"]
    assert verdict == "passed"
    assert detail == "done; init: DEPRECATED: old key; init: WARNING: odd value"


@pytest.mark.parametrize("name", ["cloud-init-status", "cloud-init-result"])
@pytest.mark.parametrize("text", ["", "{", "[]", '{"v2": {}}', '{"v1": 5}'])
def test_files_that_are_not_there_prove_nothing(
    instance: InstanceData, name: str, text: str
) -> None:
    assert look(instance, told() | {name: text})["cloud-init"][0] == "failed"


@pytest.mark.parametrize(
    ("found", "offered", "verdict"),
    [
        ("DataSourceOpenStackLocal [net,ver=2]", ("DataSourceOpenStack",), "passed"),
        ("DataSourceNoCloud [seed=/dev/sr0][dsmode=net]", ("DataSourceNoCloud",), "passed"),
        ("DataSourceEc2Local", ("DataSourceEc2", "DataSourceOpenStack"), "passed"),
        ("DataSourceNone", ("DataSourceOpenStack",), "failed"),
        ("DataSourceOpenStack", ("DataSourceConfigDrive",), "failed"),
    ],
)
def test_the_datasource_is_the_one_that_was_offered(
    instance: InstanceData, found: str, offered: tuple[str, ...], verdict: str
) -> None:
    assert look(instance, told(datasource=found), *offered)["datasource"][0] == verdict


def test_a_guest_with_cloud_init_must_run_vendor_data(instance: InstanceData) -> None:
    facts = told() | {"vendor-data": ""}
    assert verdicts(run_checks(facts, expected(instance)))["vendor-data"] == "failed"
