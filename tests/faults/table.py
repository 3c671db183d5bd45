"""Writes docs/faults.md from the tests: `python -m tests.faults.table`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.faults.catalogue import CATALOGUE
from tests.faults.marks import CHECKOUT, FaultTest, fault_tests

PAGE = CHECKOUT / "docs" / "faults.md"
HEAD = """# Faults

<!-- Written by `python -m tests.faults.table` from the tests; edit their docstrings, not this page. -->

What can go wrong around a sweep, how kprof sees it, and what it does. Each line of the fourth column is the promise of
a test. Trouble between kprof and the API server never fails a point: a point fails when its container, its pod or
the admission says so, or when a documented limit passed. The numbers that hold: [goals](goals.md).

| letter | reaction |
|---|---|
| R | goes on, after repeating what failed |
| W | waits; the point's limits do not run, or a grace period does |
| P | records the failure of this point, with the kind in brackets |
| A | ends the command before or between points, with a message that says what to mend |

| number | fault | how it is seen | what kprof does | tests |
|---|---|---|---|---|
"""


def missing(tests: Sequence[FaultTest]) -> list[int]:
    """Return the numbers for which no test holds; one that is expected to fail is none."""
    covered = {test.number for test in tests if not test.expected_to_fail}
    return [entry.number for entry in CATALOGUE if entry.number not in covered]


def page(tests: Sequence[FaultTest]) -> str:
    """Return the page."""
    rows = []
    for entry in CATALOGUE:
        own = [test for test in tests if test.number == entry.number]
        does = [f"{test.reaction or '?'}: {test.sentence}{_not_yet(test)}" for test in own]
        ids = [f"`{test.id}` ({test.where})" for test in own]
        cells = (str(entry.number), entry.fault, entry.seen, _lines(does), _lines(ids))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return HEAD + "".join(rows)


def _not_yet(test: FaultTest) -> str:
    return " (not yet)" if test.expected_to_fail else ""


def _lines(texts: Sequence[str]) -> str:
    return "<br>".join(dict.fromkeys(texts)) or "-"


def write(path: Path = PAGE) -> None:
    """Write the page."""
    path.write_text(page(fault_tests()), encoding="utf-8")


if __name__ == "__main__":
    write()
    if without := missing(fault_tests()):
        print(f"no test yet for {', '.join(map(str, without))}", file=sys.stderr)
