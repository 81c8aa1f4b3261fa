from __future__ import annotations

import pytest

from imagefactory.arch import ArchProfiles
from imagefactory.boot.nova import derive
from imagefactory.boot.prepare import allot, offered
from imagefactory.template import BootCase

ANY = {"architecture": "aarch64"}


@pytest.mark.parametrize(
    ("datasource", "properties", "names"),
    [
        ("config-drive", {}, ("DataSourceConfigDrive",)),
        ("nocloud", {}, ("DataSourceNoCloud",)),
        ("openstack", {}, ("DataSourceOpenStack",)),
        # Attached whatever the user asked for, and looked at before the network is.
        (
            "openstack",
            {"img_config_drive": "mandatory"},
            ("DataSourceOpenStack", "DataSourceConfigDrive"),
        ),
        ("none", {}, ()),
    ],
)
def test_cloud_init_may_find_what_is_offered(
    profiles: ArchProfiles, datasource: str, properties: dict[str, str], names: tuple[str, ...]
) -> None:
    case = BootCase.model_validate({"name": "x", "datasource": datasource})
    assert offered(case, derive({**ANY, **properties}, profiles)) == names


def test_a_budget_of_ones_own_changes_the_boot_and_not_the_rest(profiles: ArchProfiles) -> None:
    guest = derive(ANY, profiles)
    usual, own = allot(guest, "tcg"), allot(guest, "tcg", boot=1000)
    assert (own.boot, own.kernel, own.stall) == (1000, 800, 600)
    assert (own.checks, own.power_off) == (usual.checks, usual.power_off)
    assert usual.boot == guest.hypervisor.boot_budget


def test_an_accelerator_on_trial_gets_little_time_for_a_kernel(profiles: ArchProfiles) -> None:
    guest = derive(ANY, profiles)
    trial = allot(guest, "kvm", trial=True)
    assert trial.kernel < allot(guest, "kvm").kernel < allot(guest, "tcg").kernel
