"""Every fault of the list has a test that injects it."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
ROWS = re.findall(r"^\| (\d+) \| .+ \| (`.+`) \|$", (TESTS / "faults.md").read_text(), re.M)


def test_every_fault_has_a_test():
    assert [int(number) for number, _ in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) == 42
    named = [test for _, cell in ROWS for test in re.findall(r"`(.+?)::(\w+)`", cell)]
    assert len(named) >= len(ROWS)
    missing = [
        f"{file}::{name}"
        for file, name in named
        if f"\ndef {name}(" not in (TESTS / file).read_text()
    ]
    assert missing == []
