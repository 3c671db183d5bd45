"""Brings the bed up and down: the functions that tests and the command line use."""

import contextlib
import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bed import control_plane, host, node, pki
from tests.bed.api import Api
from tests.bed.binaries import Binaries, build_all
from tests.bed.errors import BedError
from tests.bed.images import kprof_image, pause_image, simulator_image
from tests.bed.layout import CHECKOUT, COMPILED_IN, HERE, Layout, layout
from tests.bed.machine import check_machine
from tests.bed.record import Record, alive, read_record
from tests.bed.shell import run, step, tail, wait_for

NAMESPACES = ("mnt", "net", "pid")
READY_S = 120.0
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The starter of each bed that this process has brought up; one that is not waited for stays as a zombie.
_STARTERS: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Status:
    """How the bed is: whether it runs, its node's readiness and GPUs, and the kubeconfig to use."""

    running: bool
    node_ready: bool
    gpus: int
    kubeconfig: Path


def build() -> Binaries:
    """Return the programs of the bed, building those that the cache lacks."""
    return build_all(layout())


def image(project: Path = CHECKOUT) -> Path:
    """Return the tar file of the simulator's image, imported into the bed if it runs."""
    where = layout()
    return _imported(where, simulator_image(where, project))


def own_image(project: Path = CHECKOUT) -> Path:
    """Return the tar file of kprof's own image, built from its Dockerfile and imported into the bed if it runs."""
    where = layout()
    return _imported(where, kprof_image(where, project))


def _imported(where: Layout, made: Path) -> Path:
    with _alone(where):
        record = read_record(where)
        if record is not None and alive(record):
            _import(build_all(where), record, made)
    return made


def status() -> Status:
    """Return how the bed is."""
    where = layout()
    record = read_record(where)
    if record is None or not alive(record):
        return Status(running=False, node_ready=False, gpus=0, kubeconfig=where.kubeconfig)
    api = Api(where)
    return Status(running=True, node_ready=api.node_ready(), gpus=api.gpus(), kubeconfig=where.kubeconfig)


def up(*, gpus: int = 8, fresh: bool = False, keep: bool = False, project: Path | None = CHECKOUT) -> Status:
    """Bring the bed up, or leave it as it is if it runs, and return its status.

    The simulator's image holds the given checkout; None leaves that image out. A failed start is undone unless
    keep is true. Raises MissingError if this machine cannot have a bed, BedError if the bed does not start.
    """
    where = layout()
    check_machine()
    binaries = build_all(where)
    images = [pause_image(where, binaries)]
    if project is not None:
        images.append(simulator_image(where, project))
    with _alone(where):
        record = read_record(where)
        if where.state.exists() and (fresh or record is None or not (record.complete and alive(record))):
            with step("remove the earlier bed"):
                _remove(where)
            record = None
        if record is not None:
            print("the bed is up already; its images and GPUs are brought up to date")
            for held in where.held.glob("*"):
                held.unlink()  # of a test that was killed while it kept a program down
            _import(binaries, record, *images)
            _give_gpus(where, record, gpus)
            return status()
        try:
            _start(where, binaries, images, gpus)
        except BaseException:
            if not keep:
                _remove(where)
            raise
    return status()


def down() -> bool:
    """Remove the bed; return whether there was one, and raise BedError if something of it stays."""
    where = layout()
    with _alone(where):
        if not where.state.exists():
            return False
        with step("remove the bed"):
            _remove(where)
    return True


@contextlib.contextmanager
def _alone(where: Layout) -> Iterator[None]:
    where.cache.mkdir(parents=True, exist_ok=True)
    with (where.cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _start(where: Layout, binaries: Binaries, images: list[Path], gpus: int) -> None:
    with step("write keys and configuration"):
        host.check_addresses()
        for folder in (where.state, where.data, where.logs, where.held):
            folder.mkdir(parents=True, exist_ok=True)
        record = Record(host.missing_folders())
        record.save(where)
        host.make_folders(record.folders)
        pki.make(where)
        node.write_config(where, binaries)
        control_plane.write_config(where)
        plan = where.config / "plan.json"
        plan.write_text(json.dumps(_plan(where, binaries), indent=1))
    with step("start the programs"):
        _launch(where, record, plan)
    api = Api(where)
    with _explained(where):
        with step("import images"):
            wait_for("containerd answers", lambda: _going(where, _socket(record).exists()), seconds=READY_S)
            _import(binaries, record, *images)
        with step("API server ready"):
            wait_for("the API server is ready", lambda: _going(where, api.ready()), seconds=READY_S)
        with step("node ready"):
            wait_for("the node is ready", lambda: _going(where, api.node_ready()), seconds=READY_S)
        with step("default service account"):
            wait_for("it is there", lambda: _going(where, api.default_account()), seconds=READY_S)
        _give_gpus(where, record, gpus)
    record.complete = True
    record.save(where)


def _give_gpus(where: Layout, record: Record, gpus: int) -> None:
    if record.gpus != gpus:
        api = Api(where)
        with step(f"{gpus} GPUs allocatable"):
            wait_for("the node takes GPUs", lambda: _going(where, api.advertise_gpus(gpus)), seconds=READY_S)
            wait_for("they are allocatable", lambda: _going(where, api.gpus() == gpus), seconds=READY_S)
        record.gpus = gpus
        record.save(where)


def _plan(where: Layout, binaries: Binaries) -> dict[str, object]:
    return {
        "data": str(where.data),
        "logs": str(where.logs),
        "held": str(where.held),
        "tmpfs": [str(where.data), *COMPILED_IN],
        "kernel_settings": node.KERNEL_SETTINGS,
        "network": host.bed_network(),
        "path": f"{binaries.containerd}:{binaries.runc}:{SYSTEM_PATH}",
        "needs": {"kubelet": node.CONTAINERD_SOCKET},
        "programs": {**control_plane.commands(where, binaries), **node.commands(where, binaries)},
    }


def _launch(where: Layout, record: Record, plan: Path) -> None:
    argv = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with (where.logs / "supervisor.log").open("wb") as log:
        outer = subprocess.Popen(
            [*argv, sys.executable, str(HERE / "supervisor.py"), str(plan)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _STARTERS.append(outer)
    wait_for("process 1 of the bed starts", lambda: bool(host.children(outer.pid)), seconds=10, every=0.01)
    record.pid = host.children(outer.pid)[0]
    record.started = host.started_at(record.pid) or ""
    record.namespaces = {kind: str(Path(f"/proc/{record.pid}/ns/{kind}").readlink()) for kind in NAMESPACES}
    record.save(where)
    host.connect(record.pid)
    assert outer.stdin is not None
    with outer.stdin as word:
        word.write(b"go\n")


def _going(where: Layout, answer: bool) -> bool:
    if (where.logs / "failed").is_file():
        raise BedError(f"{(where.logs / 'failed').read_text()} ended again and again")
    return answer


@contextlib.contextmanager
def _explained(where: Layout) -> Iterator[None]:
    """Add the end of the logs that matter to any failure inside."""
    try:
        yield
    except BedError as error:
        failed = where.logs / "failed"
        names = [failed.read_text()] if failed.is_file() else ["supervisor", "kube-apiserver", "containerd", "kubelet"]
        logs = "".join(f"\n--- {name}.log\n{tail(where.logs / f'{name}.log')}" for name in names)
        raise BedError(f"{error}{logs}") from error


def _import(binaries: Binaries, record: Record, *images: Path) -> None:
    ctr: list[str | Path] = [
        binaries.containerd / "ctr",
        "--address",
        _socket(record),
        "--namespace",
        "k8s.io",
    ]
    for tar in images:
        run([*ctr, "images", "import", tar])


def _socket(record: Record) -> Path:
    return Path(f"/proc/{record.pid}/root{node.CONTAINERD_SOCKET}")


def _remove(where: Layout) -> None:
    record = read_record(where) or Record([])
    if record.pid:
        host.kill(record.pid, record.started)
    while _STARTERS:
        _STARTERS.pop().wait()
    host.disconnect()
    host.remove_folders(record.folders)
    if where.state.exists():
        shutil.rmtree(where.state)
    left = host.traces(where, record.namespaces, record.folders)
    if left:
        raise BedError("the bed is down but left behind:\n" + "\n".join(left))
