"""A server for everybody, and one that a test may break."""

from collections.abc import Iterator

import pytest

from tests.store_postgresql.fixtures import server_or_skip
from tests.store_postgresql.server import Server


@pytest.fixture
def server() -> Server:
    """Return the shared server: a test leaves it as it was."""
    return server_or_skip()


@pytest.fixture(scope="session")
def _breakable() -> Iterator[Server]:
    server_or_skip()
    server = Server()
    yield server
    server.close()


@pytest.fixture
def own_server(_breakable: Server) -> Iterator[Server]:
    """Return a server that this test may stop, crash and freeze."""
    yield _breakable
    _breakable.restart()


@pytest.fixture
def url(server: Server) -> str:
    """Return the address of an empty database."""
    return server.new_database()
