"""The same tests for each database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.store import Store, open_store
from tests.store_postgresql.fixtures import server_or_skip


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of an empty place for a store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'kprof.db'}"
    return server_or_skip().new_database()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """Return an empty store."""
    opened = open_store(url)
    yield opened
    opened.close()
