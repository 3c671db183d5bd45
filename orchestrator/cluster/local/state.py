"""The folder that is this machine's API server: one sub-folder for each local pod."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cluster.port import RUN_LABEL, Container, Phase, PodSnapshot
from orchestrator.cluster.process import process_start
from orchestrator.errors import RunDrivenError

START_GRACE_SECONDS = 15.0


def default_state_folder() -> Path:
    """Return KPROF_STATE, or `kprof` in the user's XDG state folder."""
    if own := os.environ.get("KPROF_STATE"):
        return Path(own)
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "kprof"


@dataclass(frozen=True, slots=True)
class LocalPod:
    """A local pod's folder and what its files say; `port` is where its server listens on loopback."""

    folder: Path
    snapshot: PodSnapshot
    port: int
    resource: str | None
    devices: tuple[int, ...]
    grace_seconds: float
    shim: int | None


class LocalState:
    """Reads and writes the folders; every reader copes with files that are missing or half written."""

    def __init__(self, folder: Path) -> None:
        self.pods = folder / "pods"
        self._runs = folder / "runs"
        self._lock = folder / "lock"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against other kprofs of this user while ports and devices are given out."""
        self.pods.mkdir(parents=True, exist_ok=True)
        with self._lock.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def driving(self, run: str) -> Iterator[None]:
        """Hold a run against other kprofs of this user; the kernel gives it back when its holder dies."""
        self._runs.mkdir(parents=True, exist_ok=True)
        path = self._runs / run
        with path.open("a+", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                lock.seek(0)
                raise RunDrivenError(
                    f"run {run} is being driven by another kprof (process {lock.read(20).strip() or 'unknown'})",
                    remedy="wait for it, or start another run with --fresh",
                ) from error
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            try:
                yield
            finally:
                lock.truncate(0)  # the file stays: to remove it while another kprof opens it would make two locks

    def killed(self) -> list[str]:
        """Return the runs whose kprof did not end in order, and those that are being driven now."""
        if not self._runs.is_dir():
            return []
        return sorted(path.name for path in self._runs.iterdir() if path.stat().st_size)

    def all(self) -> list[LocalPod]:
        """Return every pod there is, of any run."""
        if not self.pods.is_dir():
            return []
        found = (self.read(folder) for folder in sorted(self.pods.iterdir()))
        return [pod for pod in found if pod is not None]

    def of_run(self, run: str) -> list[LocalPod]:
        """Return the pods of one run."""
        return [pod for pod in self.all() if pod.snapshot.labels.get(RUN_LABEL) == run]

    def read(self, folder: Path) -> LocalPod | None:
        """Return one pod, None when the folder holds none."""
        spec = _read_json(folder / "pod.json")
        if spec is None:
            return None
        status = _read_json(folder / "status.json") or {}
        phase = Phase(status.get("phase", "Pending"))
        if phase in {Phase.PENDING, Phase.RUNNING} and not _alive(folder, status):
            # Its last word may have come between reading the status and looking for the process.
            status = _read_json(folder / "status.json") or {}
            phase = Phase(status.get("phase", "Pending"))
        if phase in {Phase.PENDING, Phase.RUNNING} and not _alive(folder, status):
            # The shim is gone without a last word: it was killed, and its child with it.
            status, phase = {"reason": "Killed", "exit_code": 137}, Phase.FAILED
        snapshot = PodSnapshot(
            name=spec["name"],
            uid=spec["uid"],
            labels=spec["labels"],
            phase=phase,
            reason="DeadlineExceeded" if status.get("reason") == "DeadlineExceeded" else "",
            node="localhost",
            deleting=(folder / "deleting").exists(),
            container=_container(phase, status),
        )
        return LocalPod(
            folder,
            snapshot,
            spec["port"],
            spec["resource"],
            tuple(spec["devices"]),
            spec["grace_seconds"],
            status.get("shim"),
        )

    def remove(self, folder: Path) -> None:
        """Remove a pod's folder, and what still runs in it; its name is free afterwards."""
        _kill_what_works_in(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _container(phase: Phase, status: dict[str, Any]) -> Container | None:
    if phase is Phase.PENDING:
        return None
    if phase is Phase.RUNNING:
        return Container("running")
    reason = status.get("reason") or ("Completed" if phase is Phase.SUCCEEDED else "Error")
    return Container("terminated", reason, status.get("message", ""), status.get("exit_code"))


def _alive(folder: Path, status: dict[str, Any]) -> bool:
    if "shim" in status:
        return process_start(int(status["shim"])) == str(status["shim_started"])
    # Before the shim's first word there is only the folder's age to go by.
    try:
        return time.time() - (folder / "pod.json").stat().st_mtime < START_GRACE_SECONDS
    except OSError:
        return False


def _kill_what_works_in(folder: Path) -> None:
    # A shim that was killed takes its child along, and not the workers of that.
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cwd").readlink() == folder:
                os.kill(int(entry.name), signal.SIGKILL)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
