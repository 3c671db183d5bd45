"""A store in a file: what is no store is refused by name and left as it was."""

import zlib
from pathlib import Path

import pytest

from orchestrator.errors import KprofError, UsageError
from orchestrator.store import open_store
from tests.fakes.matrix import group, points
from tests.fakes.results import document

POINTS = points(group(arguments={"tp": [1, 2, 4]}))
LOG = zlib.compress(b"the log\n")

FOREIGN = {
    "text": b"this is no database at all, and long enough to be taken for one" * 20,
    "truncated": b"SQLite format 3\x00" + b"\x01" * 50,
    "json": b'{"runs": []}',
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the store is."""
    return tmp_path / "kprof.db"


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_refused_by_name(path: Path, name: str) -> None:
    """It is named, left as it was, and is no traceback."""
    path.write_bytes(FOREIGN[name])
    with pytest.raises(KprofError, match=r"kprof\.db") as caught:
        open_store(str(path))
    assert caught.value.remedy
    assert path.read_bytes() == FOREIGN[name]


def test_a_damaged_page_is_an_error_that_names_the_file(path: Path) -> None:
    """A disk may lose a page in the middle."""
    opened = open_store(str(path))
    run = opened.create_run("aaaa", "m", "d", "local", "measured", POINTS)
    for point in POINTS:
        opened.record(run.id, document(point, line="x" * 9000), LOG, 8, truncated=False)
    opened.close()
    raw = bytearray(path.read_bytes())
    raw[4096:] = bytes(len(raw) - 4096)
    path.write_bytes(raw)
    with pytest.raises(KprofError, match=r"kprof\.db"):
        open_store(str(path)).results(run.id)


@pytest.mark.parametrize(
    "url",
    ["mysql://host/db", "redis://host", "http://x", "://", "sqlite:////no/such/folder/k.db", "/no/such/folder/k.db"],
)
def test_an_address_that_is_no_store_is_a_usage_error(url: str) -> None:
    """It says what an address looks like, and shows no password."""
    with pytest.raises(UsageError, match="--store") as caught:
        open_store(url)
    assert caught.value.remedy


def test_a_password_in_an_address_is_not_shown() -> None:
    """Error messages end up in CI logs."""
    with pytest.raises(UsageError) as caught:
        open_store("mysql://user:s3cret@host/db")
    assert "s3cret" not in str(caught.value)
