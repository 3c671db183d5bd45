"""docs/faults.md says what the tests say."""

from pathlib import Path

from tests.faults.catalogue import CATALOGUE
from tests.faults.marks import fault_tests
from tests.faults.table import PAGE, missing, page


def test_the_page_is_what_the_tests_say() -> None:
    """A test that was added, renamed or reworded changes the page: `python -m tests.faults.table`."""
    assert PAGE.read_text(encoding="utf-8") == page(fault_tests()), "run python -m tests.faults.table"


def test_every_fault_has_a_test() -> None:
    """One that is expected to fail is none."""
    assert missing(fault_tests()) == []


def test_every_mark_names_a_fault_and_says_what_kprof_does() -> None:
    """Numbers are of the catalogue, reactions of the legend, and the first line of the docstring is a sentence."""
    for test in fault_tests():
        assert 1 <= test.number <= len(CATALOGUE), test.id
        known = test.reaction in {"R", "W", "A"} or test.reaction.startswith("P(")
        assert known, f"{test.id}: its mark says no reaction: R, W, P(kind) or A"
        assert test.sentence.endswith("."), f"{test.id}: the docstring's first line is no whole sentence"


def test_a_test_that_is_expected_to_fail_covers_nothing(tmp_path: Path) -> None:
    """Marks are found in every suite, and those that do not hold are told apart."""
    folder = tmp_path / "tests" / "unit"
    folder.mkdir(parents=True)
    mark = '@pytest.mark.fault({}, "R")\n'
    body = 'def test_{}():\n    """Does it."""\n'
    text = mark.format(3) + body.format("holds") + mark.format(4) + "@pytest.mark.xfail\n" + body.format("does_not")
    (folder / "test_some.py").write_text("import pytest\n" + text)
    tests = fault_tests(tmp_path)
    assert [(test.number, test.where, test.sentence) for test in tests] == [
        (3, "unit", "Does it."),
        (4, "unit", "Does it."),
    ]
    assert 3 not in missing(tests)
    assert 4 in missing(tests)
