"""A run has one driver at a time."""

import os
import signal
import subprocess
import sys

from orchestrator.store import RunRecord, Store
from tests.fakes.matrix import group, points

DRIVE = (
    "import sys\nfrom orchestrator.store import open_store\n"
    "store = open_store(sys.argv[1]); run = store.run(sys.argv[2]); assert run is not None\n"
    "with store.driving(run): print('driving', flush=True); sys.argv[3:] and sys.stdin.read()\n"
)


def _run(store: Store, name: str) -> RunRecord:
    return store.create_run(name, "m", "d", "local", "measured", points(group()))


def _drive(url: str, name: str) -> str:
    command = [sys.executable, "-c", DRIVE, url, name]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_a_second_driver_of_one_run_is_refused_and_others_are_not(url: str, store: Store) -> None:
    """Both processes would create the same pods; another run of the store is no matter."""
    first, second = _run(store, "aaaa"), _run(store, "bbbb")
    with store.driving(first):
        assert "is being driven by another kprof" in _drive(url, "aaaa")
        assert _drive(url, second.id) == ""
    assert _drive(url, "aaaa") == ""


def test_a_run_can_be_driven_again_at_once_and_beside_another(url: str, store: Store) -> None:
    """An end leaves no lock, and the end of one run leaves the lock of the other."""
    first, second = _run(store, "aaaa"), _run(store, "bbbb")
    for _ in range(3):
        with store.driving(first):
            pass
    with store.driving(first):
        with store.driving(second):
            assert "another kprof" in _drive(url, "bbbb")
        assert _drive(url, "bbbb") == ""
        assert "another kprof" in _drive(url, "aaaa")
        store.finish_run(first.id)


def test_the_lock_of_a_killed_driver_is_free_at_once(url: str, store: Store) -> None:
    """A kill leaves no time to give anything back."""
    run = _run(store, "aaaa")
    holder = subprocess.Popen(
        [sys.executable, "-c", DRIVE, url, run.id, "stay"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"driving\n"
        assert "another kprof" in _drive(url, run.id)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with store.driving(run):
            store.finish_run(run.id)
