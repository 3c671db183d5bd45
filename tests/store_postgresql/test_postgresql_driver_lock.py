"""The lock of a run lives as long as its connection, and no driver writes without it."""

import pytest

from orchestrator.errors import RunDrivenError
from orchestrator.store import RunRecord, Store, StoreError, open_store
from tests.e2e.waiting import wait_until
from tests.fakes.matrix import group, points
from tests.store_postgresql.proxy import Network
from tests.store_postgresql.server import Server

POINTS = points(group())
HOLDER = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database "


def _driven(url: str) -> tuple[Store, RunRecord]:
    store = open_store(url)
    return store, store.create_run("aaaa", "m", "d", "local", "measured", POINTS)


def _cut(server: Server, url: str) -> None:
    """End the connection that holds a lock, as a firewall or an administrator does."""
    ((pid,),) = server.execute(f"{HOLDER}WHERE datname = '{url.rpartition('/')[2]}')")
    server.execute(f"SELECT pg_terminate_backend({pid}, 5000)")


def test_a_lost_connection_takes_its_lock_again(server: Server, url: str) -> None:
    """The next write holds the run as before."""
    store, run = _driven(url)
    other = open_store(url)
    with store.driving(run):
        _cut(server, url)
        store.intend(run.id, POINTS[0].hash, "pod", 0)
        with pytest.raises(RunDrivenError, match="another kprof"), other.driving(run):
            pytest.fail("it was driven twice")
    with other.driving(run):
        pass
    store.close()
    other.close()


def test_a_lost_network_does_not_turn_a_driver_against_itself(server: Server, url: str) -> None:
    """The server still sees the old connection, and would give its lock back only half a minute later."""
    with Network(server.port) as network:
        store, run = _driven(url.replace(f":{server.port}/", f":{network.port}/"))
        with store.driving(run):
            store.intend(run.id, POINTS[0].hash, "pod", 0)
            network.cut()
            with pytest.raises(StoreError, match="did not answer"):
                store.created(run.id, POINTS[0].hash, 0, "uid")
            store.created(run.id, POINTS[0].hash, 0, "uid")
        assert server.execute("SELECT uid FROM attempts", url) == [("uid",)]
        store.close()


def test_a_driver_whose_run_was_taken_writes_nothing(server: Server, url: str) -> None:
    """Its connection broke, and another kprof was faster: two of them would write over each other."""
    store, run = _driven(url)
    other = open_store(url)
    with store.driving(run):
        _cut(server, url)
        with other.driving(run):
            other.intend(run.id, POINTS[0].hash, "pod-of-the-other", 0)
            with pytest.raises(RunDrivenError, match="another kprof"):
                store.created(run.id, POINTS[0].hash, 0, "uid-of-the-first")
            assert server.execute("SELECT pod, uid FROM attempts", url) == [("pod-of-the-other", None)]
        store.created(run.id, POINTS[0].hash, 0, "uid-of-the-first")
    assert server.execute("SELECT uid FROM attempts", url) == [("uid-of-the-first",)]
    store.close()
    other.close()


def test_nothing_is_left_on_the_server(server: Server, url: str) -> None:
    """Neither a lock nor a connection, after a refused driver either."""
    name = url.rpartition("/")[2]
    store, run = _driven(url)
    other = open_store(url)
    with store.driving(run), pytest.raises(RunDrivenError), other.driving(run):
        pytest.fail("it was driven twice")
    assert server.execute(f"{HOLDER}WHERE datname = '{name}')") == []
    store.close()
    other.close()
    count = f"SELECT 1 FROM pg_stat_activity WHERE datname = '{name}'"
    wait_until("every connection is closed", lambda: not server.execute(count), seconds=10)
