"""The boot test: an image is proven on the machine that its Glance properties describe.

The way through: ``nova`` (properties to choices) -> ``machine`` (choices to a QEMU command
line) -> ``planned`` (all of it decided and possible) -> ``launch`` (KVM or not; a child process
for each boot) -> ``prepare`` (its files) -> ``session`` (one boot: ``running``, ``waiting``,
``inside``, ``reboot``) -> ``report``.
"""

from imagefactory.boot.launch import boot_test
from imagefactory.boot.report import BootReport, CaseReport, Check, Diagnosis, proven_properties

__all__ = ["BootReport", "CaseReport", "Check", "Diagnosis", "boot_test", "proven_properties"]
