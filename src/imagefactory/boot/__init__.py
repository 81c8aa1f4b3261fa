"""The boot test: an image is proven on the machine that its Glance properties describe.

The way through: ``nova`` (properties to choices) -> ``machine`` (choices to a QEMU command
line) -> ``launch`` (files, namespaces, KVM or not) -> ``session`` (one boot, as a child process)
-> ``report``.
"""

from imagefactory.boot.launch import boot_test
from imagefactory.boot.report import BootReport, CaseReport, Check, Diagnosis

__all__ = ["BootReport", "CaseReport", "Check", "Diagnosis", "boot_test"]
