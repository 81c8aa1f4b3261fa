from __future__ import annotations

import subprocess

from imagefactory.boot.facts import facts_script, parse_facts, user_data, vendor_data
from tests.boot.test_checks import GOOD, TOKEN


def test_the_script_is_posix_shell_and_its_answer_is_read_back() -> None:
    text = facts_script(TOKEN).replace("left=90", "left=0")
    done = subprocess.run(
        ["sh", "-s"], input=text, capture_output=True, text=True, timeout=60, check=True
    )
    facts = parse_facts(done.stdout)
    assert facts["end"] == TOKEN
    assert facts["uname"]
    assert facts["root"].split()[1].isdecimal()
    assert set(GOOD) <= set(facts)


def test_user_and_vendor_data_are_scripts() -> None:
    for script in (user_data(TOKEN), vendor_data(TOKEN)["cloud-init"]):
        assert script.startswith("#!/bin/sh\n")
        assert TOKEN in script
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)
