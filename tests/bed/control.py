"""Stops, freezes and starts again single programs of a running bed, so that tests can see what kprof makes of it."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tests.bed.api import Api
from tests.bed.errors import BedError
from tests.bed.host import started_at
from tests.bed.layout import Layout, layout
from tests.bed.record import Record, alive, read_record
from tests.bed.shell import wait_for

Program = Literal["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"]
# Where each program listens, in the bed's own network namespace.
PORTS: dict[Program, int] = {
    "etcd": 2379,
    "kube-apiserver": 443,
    "kube-controller-manager": 10257,
    "kube-scheduler": 10259,
    "kubelet": 10250,
}
ENDS_S = 100.0  # the API server takes a minute to let go of its watches
WORKS_S = 90.0
LISTENING = "0A"


class Control:
    """The programs of the bed that runs now; raises BedError where there is none."""

    def __init__(self, where: Layout | None = None) -> None:
        """Find the running bed."""
        self._where = where or layout()
        record = read_record(self._where)
        if record is None or not alive(record):
            raise BedError("there is no bed whose programs could be stopped")
        self._record: Record = record
        self._api = Api(self._where)

    @contextlib.contextmanager
    def stopped(self, program: Program, how: signal.Signals = signal.SIGKILL) -> Iterator[None]:
        """End a program and keep it down for the block; it works again when the block is left."""
        held = self._where.held / program
        held.touch()
        try:
            pid = self._pid(program)
            _send(pid, how)
            wait_for(f"{program} is gone", lambda: started_at(pid) is None, seconds=ENDS_S)
            yield
        finally:
            held.unlink()
            self.wait_until_it_works(program)

    @contextlib.contextmanager
    def frozen(self, program: Program) -> Iterator[None]:
        """Let a program hang for the block: its connections stay open, and nobody answers."""
        pid = self._pid(program)
        _send(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            _send(pid, signal.SIGCONT)
            self.wait_until_it_works(program)

    def wait_until_it_works(self, program: Program) -> None:
        """Wait until a program does its work."""
        wait_for(f"{program} listens", lambda: self._listens(program), seconds=WORKS_S, every=0.02)
        if program == "kubelet":
            before = self._heartbeat()
            wait_for("the node has a heartbeat", lambda: self._heartbeat() not in {before, None}, seconds=WORKS_S)
            wait_for("the node is ready", self._api.node_ready, seconds=WORKS_S)
        elif program in {"etcd", "kube-apiserver"}:
            wait_for("the API server is ready", self._api.ready, seconds=WORKS_S, every=0.02)

    def _heartbeat(self) -> str | None:
        conditions = self._api.node().get("status", {}).get("conditions", [])
        return next((str(item["lastHeartbeatTime"]) for item in conditions if item["type"] == "Ready"), None)

    def _pid(self, program: Program) -> int:
        """Return the program's process id on this machine, once it runs."""
        wait_for(f"{program} runs", lambda: any(self._pids(program)), seconds=WORKS_S)
        return next(self._pids(program))

    def _pids(self, program: Program) -> Iterator[int]:
        for entry in Path("/proc").iterdir():
            try:
                inside = entry.name.isdigit() and str((entry / "ns/pid").readlink()) == self._record.namespaces["pid"]
                if inside and (entry / "exe").readlink().name == program:
                    yield int(entry.name)
            except OSError:
                continue  # it ended while we looked

    def _listens(self, program: Program) -> bool:
        for name in ("tcp", "tcp6"):
            for line in Path(f"/proc/{self._record.pid}/net/{name}").read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == LISTENING and int(local.rpartition(":")[2], 16) == PORTS[program]:
                    return True
        return False


def _send(pid: int, number: signal.Signals) -> None:
    """Signal a process through a handle, which no other process can inherit."""
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)
