"""Who drives a run: identities that tell the living from the dead, and the lock of this machine."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cluster.local.adapter import LocalCluster
from orchestrator.cluster.process import Driver
from orchestrator.errors import RunDrivenError


def test_a_driver_is_told_apart_from_every_other() -> None:
    """Two holds of one process are two drivers: a Lease must not be taken for one's own."""
    first, second = Driver.this(), Driver.this()
    assert first != second
    assert Driver.parse(str(first)) == first
    assert first.pid == os.getpid()


@pytest.mark.parametrize("identity", ["", "node-7", "a/b/c/d/e", "a/b/1/2", "kube-scheduler_1234"])
def test_a_foreign_identity_is_no_driver(identity: str) -> None:
    """Leases of other programs are not understood, and so never taken for dead."""
    assert Driver.parse(identity) is None


def test_a_process_that_ended_on_this_machine_is_known_to_be_dead() -> None:
    """Also when its pid was given to another process since."""
    this = Driver.this()
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    assert not this.known_dead
    assert replace(this, pid=child.pid).known_dead
    assert replace(this, started="1").known_dead


def test_nobody_here_knows_of_processes_elsewhere() -> None:
    """Another host, another boot or another container: its pids say nothing."""
    this = replace(Driver.this(), started="1")
    assert not replace(this, host="elsewhere").known_dead
    assert not replace(this, place="0a1b2c3d-4026531836").known_dead


async def test_a_run_of_this_machine_is_driven_once(tmp_path: Path) -> None:
    """Whatever store the second kprof uses: the state folder is shared."""
    first, second = LocalCluster(state=tmp_path), LocalCluster(state=tmp_path)
    async with first.hold("abc"):
        with pytest.raises(RunDrivenError, match=f"process {os.getpid()}"):
            async with second.hold("abc"):
                pass
        async with second.hold("other"):
            pass
    async with second.hold("abc"):
        pass
