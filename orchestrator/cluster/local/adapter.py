"""The local adapter: the same pod's command as a process group on this machine, reached over loopback."""

import asyncio
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiohttp

from orchestrator.cluster.local.state import LocalPod, LocalState, default_state_folder
from orchestrator.cluster.manifest import unescape
from orchestrator.cluster.port import (
    HTTP_PORT,
    POINT_LABEL,
    RUN_LABEL,
    SPEC_LABEL,
    Change,
    Finding,
    HttpReply,
    Leftover,
    Level,
    LogChunk,
    PodManifest,
    PodRejectedError,
    PodSnapshot,
    PodUnreachableError,
)
from orchestrator.errors import ClusterError

POLL_SECONDS = 0.1
FIRST_WORD_SECONDS = 3.0  # from the start of a shim to its first status
GRACE_SECONDS = 30
READ_BYTES = 1 << 20
# What the pod sets for a container only; on this machine the user's own cache is the right one.
CONTAINER_ONLY = frozenset({"HF_HOME"})
_VISIBLE = {"nvidia.com/gpu": "CUDA_VISIBLE_DEVICES", "amd.com/gpu": "HIP_VISIBLE_DEVICES"}


class LocalCluster:
    """Runs pods as processes; `executable` replaces `vllm` of the pod's command.

    `devices` is how many accelerators this machine has; None asks `nvidia-smi` or `rocm-smi` for their list.
    """

    def __init__(
        self, executable: Sequence[str] = ("vllm",), *, devices: int | None = None, state: Path | None = None
    ) -> None:
        self._executable = list(executable)
        self._devices = devices
        self._state = LocalState(state or default_state_folder())
        self._pools: dict[str, Sequence[int]] = {}
        self._shims: list[subprocess.Popen[bytes]] = []

    @property
    def name(self) -> str:
        """Return `local`."""
        return "local"

    @property
    def answering(self) -> bool:
        """This machine always answers."""
        return True

    @property
    def clock_skew_seconds(self) -> float | None:
        """There is one clock."""
        return 0.0

    async def why_gated(self, pod: PodSnapshot) -> str | None:  # noqa: ARG002
        """No queue holds a local pod."""
        return None

    async def scaling_up(self, pod: PodSnapshot) -> bool | None:  # noqa: ARG002
        """No machine is ever added."""
        return False

    def look_command(self, *pods: str) -> str:
        """Return the words that show the logs."""
        return shlex.join(["tail", *(str(self._state.pods / name / "log") for name in pods)])

    async def check(self, manifests: Sequence[PodManifest]) -> None:
        """Check that the command exists and that every point's devices fit this machine."""
        if shutil.which(self._executable[0]) is None:
            raise ClusterError(
                f"{self._executable[0]!r} is not on PATH", remedy="install vLLM on this machine, or use --simulate"
            )
        for resource in {manifest.resource for manifest in manifests if manifest.resource}:
            have = len(await self._pool(resource))
            most = max(manifest.devices for manifest in manifests if manifest.resource == resource)
            if most > have:
                raise ClusterError(
                    f"a point asks for {most} x {resource}, this machine has {have}",
                    remedy="select smaller points with --only, or run the sweep on a cluster",
                )

    async def _pool(self, resource: str) -> Sequence[int]:
        """Return the indices of the devices that may be used: those the user's environment leaves visible."""
        if resource not in self._pools:
            found: Sequence[int] | None = None
            if self._devices is None:
                visible = os.environ.get(_VISIBLE.get(resource, ""), "")
                found = [int(part) for part in visible.split(",")] if visible.replace(",", "").isdigit() else None
                if found is None:
                    found = range(await asyncio.to_thread(_devices_of_this_machine, resource))
            self._pools[resource] = found if found is not None else range(self._devices or 0)
        return self._pools[resource]

    async def examine(self, manifests: Sequence[PodManifest]) -> AsyncIterator[Finding]:
        """Look for the executable and for devices."""
        program = shutil.which(self._executable[0])
        if program is None:
            install = "install vLLM (pip install vllm), or use --simulate"
            yield Finding(Level.FAIL, "vllm", f"{self._executable[0]} is not on PATH", install)
        else:
            yield Finding(Level.OK, "vllm", program)
        for resource in sorted({manifest.resource for manifest in manifests if manifest.resource}):
            most = max(manifest.devices for manifest in manifests if manifest.resource == resource)
            pool = await self._pool(resource)
            level = Level.FAIL if most > len(pool) else Level.OK
            remedy = "leave the larger points out with --only" if most > len(pool) else None
            text = f"{resource}: this machine has {len(pool)}, the largest point takes {most}"
            yield Finding(level, "devices", text, remedy)

    async def free_devices(self, resource: str | None) -> int | None:
        """Return the devices no local pod holds; a point that needs none takes the machine, so there is one place."""
        if resource is None:
            busy = any(pod.resource is None and not pod.snapshot.finished for pod in self._state.all())
            return 0 if busy else 1
        return max(0, len(await self._pool(resource)) - len(self._held(resource)))

    def hurry(self) -> None:
        """Nothing local is ever waited for that long."""

    def _held(self, resource: str | None) -> set[int]:
        live = (pod for pod in self._state.all() if pod.resource == resource)
        return {index for pod in live if not pod.snapshot.finished for index in pod.devices}

    def hold(self, run: str) -> AbstractAsyncContextManager[None]:
        """Hold the run's lock in the state folder."""
        return _held(self._state, run)

    async def open_run(self, run: str) -> None:
        """Local pods have no owner: their shims carry the deadline."""

    async def close_run(self, run: str) -> list[str]:
        """Delete what is left of the run's pods."""
        for pod in self._state.of_run(run):
            await self.delete(pod.snapshot)
        return []

    async def abandoned(self) -> list[str]:
        """Return the runs of killed kprofs that have pods, and those that are being driven: `hold` tells them apart."""
        runs = {pod.snapshot.labels.get(RUN_LABEL) for pod in self._state.all()}
        return [run for run in self._state.killed() if run in runs]

    async def leftovers(self) -> list[Leftover]:
        """Return the pods of this state folder by run."""
        runs: dict[str, list[str]] = {}
        for pod in self._state.all():
            runs.setdefault(pod.snapshot.labels.get(RUN_LABEL, ""), []).append(pod.snapshot.name)
        return [Leftover(run, tuple(sorted(names))) for run, names in sorted(runs.items()) if run]

    async def create(self, manifest: PodManifest) -> PodSnapshot:
        """Start the pod's shim, or adopt the equal pod of this name that a killed kprof left behind."""
        folder = self._state.pods / manifest.name
        known = await self._started(folder)
        if known is not None:
            there = known.snapshot
            if any(there.labels.get(label) != manifest.labels[label] for label in (RUN_LABEL, POINT_LABEL)):
                # Somebody else's, which stays; the next attempt has another name.
                raise PodRejectedError("pod.evicted", f"the name {manifest.name} is taken by what is not this point's")
            if not there.deleting and there.labels.get(SPEC_LABEL) == manifest.labels[SPEC_LABEL]:
                return there
            # Limits or the simulator changed since a killed kprof made it, or it was being deleted.
            await self.delete(there)
        devices = await self._pool(manifest.resource) if manifest.resource else ()
        try:
            with self._state.locked():
                return self._start(manifest, folder, devices)
        except OSError as error:
            raise ClusterError(
                f"{error.filename or folder}: {error.strerror or error}", remedy="set KPROF_STATE to a folder of yours"
            ) from error

    async def _started(self, folder: Path) -> LocalPod | None:
        """Return the pod of a folder once its shim has spoken; None when there is none, or it was never started."""
        for _ in range(int(FIRST_WORD_SECONDS / POLL_SECONDS)):
            pod = self._state.read(folder)
            if pod is None or pod.shim is not None:
                return pod
            await asyncio.sleep(POLL_SECONDS)
        return None

    def _start(self, manifest: PodManifest, folder: Path, devices: Sequence[int]) -> PodSnapshot:
        held = self._held(manifest.resource)
        free = [index for index in devices if index not in held]
        if manifest.devices > len(free):
            words = f"{manifest.devices} devices asked, {len(free)} free"
            raise PodRejectedError("pod.unschedulable", words, waits=manifest.devices <= len(devices))
        given = free[: manifest.devices]
        port = _free_port({pod.port for pod in self._state.all()})
        container = manifest.body["spec"]["containers"][0]
        argv = [*self._executable, *container["command"][1:], *(_local(word, port) for word in container["args"])]
        env = dict(os.environ) | {
            entry["name"]: unescape(entry["value"])
            for entry in container["env"]
            if "value" in entry and entry["name"] not in CONTAINER_ONLY
        }
        if manifest.resource in _VISIBLE:
            env[_VISIBLE[manifest.resource]] = ",".join(map(str, given))
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        folder.chmod(0o700)
        spec = {
            "name": manifest.name,
            "uid": str(uuid.uuid4()),
            "labels": dict(manifest.labels),
            "argv": argv,
            "port": port,
            "resource": manifest.resource,
            "devices": given,
            "deadline_seconds": manifest.body["spec"]["activeDeadlineSeconds"],
            "grace_seconds": manifest.body["spec"].get("terminationGracePeriodSeconds", GRACE_SECONDS),
        }
        return self._spawn(folder, spec, env)

    def _spawn(self, folder: Path, spec: dict[str, object], env: Mapping[str, str]) -> PodSnapshot:
        (folder / "log").touch()
        (folder / "pod.json").write_text(json.dumps(spec), encoding="utf-8")
        shim = subprocess.Popen(
            [sys.executable, "-S", "-E", str(Path(__file__).with_name("shim.py")), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=folder,
            env=env,  # inherited, not written down: it may hold the user's token
        )
        self._shims.append(shim)
        pod = self._state.read(folder)
        if pod is None:
            raise ClusterError(f"{folder} vanished while its pod started", remedy="run the command again")
        return pod.snapshot

    async def get(self, name: str) -> PodSnapshot | None:
        """Return a pod by name."""
        pod = self._state.read(self._state.pods / name)
        return None if pod is None else pod.snapshot

    async def changes(self, run: str) -> AsyncIterator[Change]:
        """Compare the run's folders ten times a second; files have no watch worth its trouble."""
        known: Mapping[str, PodSnapshot] | None = None
        while True:
            self._reap()
            now = {pod.snapshot.uid: pod.snapshot for pod in self._state.of_run(run)}
            if known is None:
                yield Change(listing=list(now.values()))
            else:
                for uid, pod in now.items():
                    if known.get(uid) != pod:
                        yield Change(pod=pod)
                for uid, pod in known.items():
                    if uid not in now:
                        yield Change(pod=pod, deleted=True)
            known = now
            await asyncio.sleep(POLL_SECONDS)

    async def logs(
        self,
        pod: PodSnapshot,
        finished: Callable[[], bool],
        idle_seconds: float = 0.0,  # noqa: ARG002 - a file is not cut off
    ) -> AsyncIterator[LogChunk]:
        """Read the log file as it grows; a last line without newline is given at the end."""
        path = self._state.pods / pod.name / "log"
        position, rest = 0, b""
        while True:
            last = finished()
            data = _read_from(path, position)
            position += len(data)
            whole, newline, tail = (rest + data).rpartition(b"\n")
            rest = tail
            if data:
                yield LogChunk(whole + newline)  # empty while a line grows that has no end yet
            if last and not data:
                break
            if not data:
                await asyncio.sleep(POLL_SECONDS)
        if rest:
            yield LogChunk(rest)

    @asynccontextmanager
    async def request(
        self, pod: PodSnapshot, method: str, path: str, body: bytes | None = None, *, timeout_seconds: float
    ) -> AsyncIterator[HttpReply]:
        """Call the server on its loopback port."""
        local = self._state.read(self._state.pods / pod.name)
        if local is None:
            raise PodUnreachableError(f"{pod.name} is gone")
        headers = {"Content-Type": "application/json"} if body is not None else {}
        timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=5)
        url = f"http://127.0.0.1:{local.port}{path}"
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(method, url, data=body, headers=headers, allow_redirects=False) as reply,
            ):
                yield HttpReply(reply.status, reply.content.iter_any(), dict(reply.headers))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise PodUnreachableError(f"{method} {path}: {error or type(error).__name__}") from error

    async def delete(self, pod: PodSnapshot) -> None:
        """Stop the process group (SIGTERM, grace, SIGKILL) and remove the folder."""
        folder = self._state.pods / pod.name
        local = self._state.read(folder)
        if local is None or local.snapshot.uid != pod.uid:
            return
        if not local.snapshot.finished:
            (folder / "deleting").touch()
            await self._terminate(local)
        self._state.remove(folder)

    def _reap(self) -> None:
        # Shims are children of this kprof or of one that is gone; only the former leave zombies.
        self._shims = [shim for shim in self._shims if shim.poll() is None]

    async def _terminate(self, pod: LocalPod) -> None:
        limit = asyncio.get_running_loop().time() + pod.grace_seconds + 15
        asked = False
        while True:
            self._reap()
            now = self._state.read(pod.folder)
            if now is None or now.snapshot.finished:
                return
            # Before its first status the shim has no handler for SIGTERM.
            if now.shim is not None and not asked:
                os.kill(now.shim, signal.SIGTERM)
                asked = True
            if now.shim is not None and asyncio.get_running_loop().time() > limit:
                os.kill(now.shim, signal.SIGKILL)
                return
            await asyncio.sleep(POLL_SECONDS / 2)


@asynccontextmanager
async def _held(state: LocalState, run: str) -> AsyncIterator[None]:
    with state.driving(run):
        yield


def _local(word: str, port: int) -> str:
    if word == "--host=0.0.0.0":
        return "--host=127.0.0.1"
    return f"--port={port}" if word == f"--port={HTTP_PORT}" else unescape(word)


def _free_port(taken: set[int]) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port


def _read_from(path: Path, position: int) -> bytes:
    try:
        with path.open("rb") as log:
            log.seek(position)
            return log.read(READ_BYTES)
    except OSError:
        return b""


def _devices_of_this_machine(resource: str) -> int:
    command = ["nvidia-smi", "-L"] if resource == "nvidia.com/gpu" else ["rocm-smi", "--showid", "--csv"]
    if shutil.which(command[0]) is None:
        return 0
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return 0
    prefix = "GPU " if resource == "nvidia.com/gpu" else "card"
    return sum(line.startswith(prefix) for line in listing.splitlines())
