"""What every whole system of ours gets besides its packages: its cloud, its users, its steps."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping

from imagefactory.plan import BuildPlan
from imagefactory.rootfs.customising import Account, Action, WholeFile
from imagefactory.systemtree import SystemTree, User
from imagefactory.template import Step

_CLOUD_CONFIG = "etc/cloud/cloud.cfg.d/90_imagefactory.cfg"

_DETECTION = """\
# Written by imagefactory.
# nova tells a guest that it is one by SMBIOS, which ppc64le has not, and aarch64 not in every
# cloud. cloud-init from 25.1.3 (CVE-2024-6174) then switches itself off unless there is a config
# drive; an image for OpenStack shall ask the metadata service there, as it always did.
policy: search,found=all,maybe=all,notfound=disabled
"""
"""Of cloud-init's ds-identify, which chooses among the datasources before anything has run."""


def actions(plan: BuildPlan, recipe: SystemTree) -> tuple[Action, ...]:
    """Return the steps of the customisation, the overlays first."""
    overlays = [name for name in (recipe.overlay, recipe.extra_overlay) if name]
    copies = [Step.model_validate({"copy": {"from": name, "to": "."}}) for name in overlays]
    return tuple(_action(step, plan) for step in (*copies, *plan.template.customize))


def accounts(recipe: SystemTree) -> tuple[Account, ...]:
    """Return the users that are in the image from the start."""
    return tuple(
        Account(user.name, user.groups, user.shell, user.password_hash or "*")
        for user in recipe.users
    )


def files(plan: BuildPlan, recipe: SystemTree, **more: object) -> tuple[WholeFile, ...]:
    """Return what a tree says of its disk, its cloud and its users.

    Args:
        plan: The build.
        recipe: The section of its builder.
        more: Settings of cloud-init besides ours.
    """
    return (
        WholeFile("etc/fstab", plan.fstab),
        WholeFile(_CLOUD_CONFIG, _cloud_config(plan, recipe, more)),
        WholeFile("etc/cloud/ds-identify.cfg", _DETECTION),
        *itertools.chain.from_iterable(map(_files_of_user, recipe.users)),
    )


def _files_of_user(user: User) -> list[WholeFile]:
    files = []
    if user.authorized_keys:
        keys = "".join(f"{key}\n" for key in user.authorized_keys)
        files.append(WholeFile(f"home/{user.name}/.ssh/authorized_keys", keys, 0o600, user.name))
    if user.sudo:
        rule = f"{user.name} ALL=(ALL) NOPASSWD:ALL\n"
        # sudoers(5): a file whose name has a dot is not read.
        files.append(WholeFile(f"etc/sudoers.d/{user.name.replace('.', '_')}", rule, 0o440))
    return files


def _action(step: Step, plan: BuildPlan) -> Action:
    if step.copy_:
        source = plan.beside(step.copy_.source)
        mode = int(step.copy_.mode, 8) if step.copy_.mode else None
        return Action("copy", str(source), step.copy_.to, mode, step.copy_.owner)
    if step.script:
        return Action("script", str(plan.beside(step.script)))
    if step.run:
        return Action("run", step.run)
    verb = next(name for name in ("enable", "disable", "mask") if getattr(step, name))
    return Action("systemctl", verb, " ".join(getattr(step, verb)))


def _cloud_config(plan: BuildPlan, recipe: SystemTree, more: Mapping[str, object]) -> str:
    """The default user and the order of datasources, for cloud-init; JSON is YAML too."""
    user = {
        "name": plan.template.default_user,
        "lock_passwd": True,
        "gecos": "Cloud user",
        "groups": list(recipe.groups),
        "sudo": ["ALL=(ALL) NOPASSWD:ALL"],
        "shell": "/bin/bash",
    }
    settings: dict[str, object] = {
        "datasource_list": list(recipe.datasources),
        "system_info": {"default_user": user},
        **more,
    }
    return f"# Written by imagefactory.\n{json.dumps(settings, indent=2)}\n"
