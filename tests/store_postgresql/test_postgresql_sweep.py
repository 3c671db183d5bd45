"""A sweep whose results go to PostgreSQL, as a user runs it: killed, resumed, and with a server that restarts."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.store import open_store
from tests.e2e import local_pods
from tests.e2e.command import H100, Kprof
from tests.e2e.waiting import wait_until
from tests.store_postgresql.server import Server

IDS = ("qwen3-32b-tp1", "mistral-small-3.2-24b")
# Slow enough that no result is there yet when the pods are seen.
SPEED = ("--simulate", "--simulate-speed", "10")
SWEEP = ("sweep", H100, "--on", "local", *SPEED, "--only", IDS[0], "--only", IDS[1])
SECONDS = 60.0


@pytest.fixture
def kprof(tmp_path: Path) -> Iterator[Kprof]:
    """Return a kprof that knows no cluster."""
    command = Kprof(tmp_path)
    yield command
    command.close()


def _pods_are_made(server: Server, url: str) -> bool:
    try:
        return server.execute("SELECT count(uid) FROM attempts WHERE NOT ended", url) == [(len(IDS),)]
    except Exception as error:
        if "does not exist" in str(error):
            return False  # the tables are not there yet
        raise


def _check(server: Server, url: str, kprof: Kprof) -> None:
    assert server.execute("SELECT number, finished_at IS NULL FROM runs", url) == [(1, True)]
    found = "SELECT p.id, r.outcome, r.attempt, r.source FROM results r JOIN points p USING (run_id, hash) ORDER BY 1"
    assert server.execute(found, url) == [(name, "ready", 0, "SIMULATED") for name in sorted(IDS)]
    assert server.execute("SELECT count(*) FROM attempts WHERE ended", url) == [(len(IDS),)]
    assert local_pods.pods(kprof.state) == []
    assert local_pods.lasting_processes(kprof.state) == []
    shown = kprof.run("summary", "--store", url, "--format", "json")
    assert len(shown.json()["rows"]) == len(IDS), shown.stderr
    log = kprof.run("logs", IDS[0], "--store", url)
    assert log.stdout.startswith("kprof simulator")


def test_a_sweep_is_killed_and_resumed(server: Server, url: str, kprof: Kprof) -> None:
    """One run, one result and one attempt for each point; its password is printed nowhere."""
    first = kprof.start(*SWEEP, "--store", url)
    wait_until("the pods are made", lambda: _pods_are_made(server, url), seconds=SECONDS, every=0.005)
    first.signal(signal.SIGKILL)
    first.process.wait()
    assert server.execute("SELECT count(*) FROM results", url) == [(0,)]
    done = kprof.run(*SWEEP, "--store", url)
    assert done.code == 0, done.stderr
    _check(server, url, kprof)
    assert server.password not in done.stdout + done.stderr
    assert f"--store {url.replace(f':{server.password}', '')}" in done.stderr


def test_a_second_sweep_of_a_driven_run_is_refused(server: Server, url: str, kprof: Kprof) -> None:
    """The lock is the database's: the other kprof may run on another machine."""
    store = open_store(url)
    assert kprof.run(*SWEEP, "--store", url).code == 0
    run = store.latest_run()
    assert run is not None
    with store.driving(run):
        refused = kprof.run(*SWEEP, "--store", url)
    assert refused.code == 1
    assert "is being driven by another kprof" in refused.error
    assert server.password not in refused.stderr
    store.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_restart_of_the_server_loses_nothing(own_server: Server, kprof: Kprof, how: signal.Signals) -> None:
    """It goes down while the points run, and comes back when the first result could not be written."""
    url = own_server.new_database()
    running = kprof.start(*SWEEP, "--store", url)
    wait_until("the pods are made", lambda: _pods_are_made(own_server, url), seconds=SECONDS, every=0.005)
    own_server.stop(how)
    with socket.create_server(("127.0.0.1", own_server.port)) as instead:
        instead.settimeout(SECONDS)
        instead.accept()[0].close()
    own_server.start()
    done = running.outcome()
    assert done.code == 0, done.stderr
    _check(own_server, url, kprof)
