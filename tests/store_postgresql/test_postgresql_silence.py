"""Whatever the server does, the event loop waits a few seconds at most, and nothing is lost."""

import os
import signal
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from orchestrator.errors import KprofError
from orchestrator.store import Store, StoreError, open_store
from tests.e2e.waiting import wait_until
from tests.fakes.matrix import group, points
from tests.fakes.results import document
from tests.store_postgresql.server import Server

POINTS = points(group(arguments={"tp": [1, 2]}))
MOST_SECONDS = 20.0  # five of the operation, and what a loaded machine adds


@contextmanager
def refused_in_time(match: str | None = None) -> Iterator[None]:
    """Expect a StoreError, soon."""
    begin = time.monotonic()
    with pytest.raises(StoreError, match=match):
        yield
    assert time.monotonic() - begin < MOST_SECONDS


def _store(url: str) -> Store:
    store = open_store(url)
    store.create_run("aaaa", "m", "d", "local", "measured", POINTS)
    return store


def _record(store: Store, place: int) -> None:
    store.record("aaaa", document(POINTS[place]), zlib.compress(b"log"), 3, truncated=False)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("driving", [False, True])
def test_a_restart_between_two_writes_is_not_noticed(own_server: Server, driving: bool, how: signal.Signals) -> None:
    """The old connections are dead; nobody has to try again. SIGQUIT is a crash of the server."""
    store = _store(own_server.new_database())
    run = store.latest_run()
    assert run is not None
    if driving:
        with store.driving(run):
            _record(store, 0)
            own_server.restart(how)
            _record(store, 1)
    else:
        _record(store, 0)
        own_server.restart(how)
        _record(store, 1)
    assert [item.outcome for item in store.results("aaaa")] == ["ready"] * 2
    store.close()


@pytest.mark.parametrize("driving", [False, True])
def test_a_server_that_is_down_is_an_error_until_it_is_back(own_server: Server, driving: bool) -> None:
    """The caller tries again, and finds everything that was committed."""
    store = _store(own_server.new_database())
    run = store.latest_run()
    assert run is not None

    def down_and_up() -> None:
        _record(store, 0)
        own_server.stop()
        for _ in range(2):
            with refused_in_time("127.0.0.1"):
                _record(store, 1)
        own_server.start()
        _record(store, 1)

    if driving:
        with store.driving(run):
            down_and_up()
    else:
        down_and_up()
    assert [item.outcome for item in store.results("aaaa")] == ["ready"] * 2
    store.close()


def test_a_run_is_not_driven_while_the_server_is_down(own_server: Server) -> None:
    """And is, once it is back."""
    store = _store(own_server.new_database())
    run = store.latest_run()
    assert run is not None
    own_server.stop()
    driven = []
    with refused_in_time(), store.driving(run):
        driven.append(run)
    assert driven == []
    own_server.start()
    with store.driving(run):
        _record(store, 0)
    store.close()


@pytest.mark.parametrize("driving", [False, True])
def test_a_server_that_falls_silent_is_given_up(own_server: Server, driving: bool) -> None:
    """It is frozen, not dead: its kernel goes on answering for it. A statement limit of its own does not run then."""
    url = own_server.new_database()
    store = _store(url)
    run = store.latest_run()
    assert run is not None

    def freeze_and_thaw() -> None:
        found = own_server.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'kprof'")
        frozen = [pid for (pid,) in found if isinstance(pid, int)]
        assert frozen
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            with refused_in_time("did not answer"):
                _record(store, 0)
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)

    def again() -> bool:
        try:
            _record(store, 0)
        except KprofError:  # the frozen holder of the lock may take a moment to go
            return False
        return True

    if driving:
        with store.driving(run):
            freeze_and_thaw()
            wait_until("the result is recorded", again, seconds=20)
    else:
        freeze_and_thaw()
        wait_until("the result is recorded", again, seconds=20)
    assert len(store.results("aaaa")) == 1
    store.close()


def test_a_server_that_never_greets_is_given_up() -> None:
    """It takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent, refused_in_time("timeout"):
        open_store(f"postgresql://kprof@127.0.0.1:{silent.getsockname()[1]}/db")


def test_a_silent_host_is_passed_over(server: Server, url: str) -> None:
    """An address may name the hosts of a replicated server; one of them may be gone without a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        database = url.rpartition("/")[2]
        ports = f"{silent.getsockname()[1]},{server.port}"
        hosts = f"host=127.0.0.1,127.0.0.1&port={ports}"
        store = open_store(f"postgresql://kprof:{server.password}@/{database}?{hosts}")
        assert store.create_run("aaaa", "m", "d", "local", "measured", POINTS).number == 1
        store.close()


def test_a_table_that_somebody_locks_is_given_up(url: str) -> None:
    """A backup or a schema tool may hold it for an hour."""
    store = _store(url)
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE results")
        with refused_in_time("lock timeout"):
            _record(store, 0)
    _record(store, 0)
    assert len(store.results("aaaa")) == 1
    store.close()
