"""A cluster that plays scripts: pod states over time, log lines, an HTTP server; it refuses what it does not expect."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.cluster.port import (
    POINT_LABEL,
    SPEC_LABEL,
    Change,
    Container,
    Finding,
    HttpReply,
    Leftover,
    Level,
    LogChunk,
    Phase,
    PodManifest,
    PodRejectedError,
    PodSnapshot,
    PodUnreachableError,
)

Step = Callable[["FakePod"], None]
READY_LOG = b"""(EngineCore pid=9) INFO 01-01 00:00:00 [m.py:1] vLLM API server version 0.11.0
(EngineCore pid=9) INFO 01-01 00:00:01 [m.py:1] Model loading took 14.99 GiB and 7.4 seconds
(EngineCore pid=9) INFO 01-01 00:00:02 [k.py:1] GPU KV cache size: 184,704 tokens
(EngineCore pid=9) DEBUG 01-01 00:00:02 [l.py:1] cache_config_info with initialization after num_gpu_blocks is: 1443
INFO:     Application startup complete.
"""
NO_ROOM_LOG = b"ERROR 01-01 00:00:03 [core.py:1] ValueError: No available memory for the cache blocks.\n"
SIMULATOR_LOG = b"kprof simulator 0.1.0: every figure below is computed\n"


def state(**changes: Any) -> tuple[float, Step]:
    """Change the pod's snapshot."""
    return 0.0, lambda pod: pod.show(**changes)


def running() -> tuple[float, Step]:
    """Start the container."""
    return state(phase=Phase.RUNNING, node="node-1", container=Container("running"))


def waiting(reason: str, message: str = "") -> tuple[float, Step]:
    """Leave the container waiting for a reason."""
    return state(container=Container("waiting", reason, message))


def ended(code: int = 1, reason: str = "Error", **changes: Any) -> tuple[float, Step]:
    """End the container."""
    phase = Phase.SUCCEEDED if code == 0 else Phase.FAILED
    return state(phase=phase, container=Container("terminated", reason, exit_code=code), **changes)


def log(data: bytes, *, gap: bool = False) -> tuple[float, Step]:
    """Print lines."""
    return 0.0, lambda pod: pod.print(LogChunk(data, gap))


def unreadable(words: str) -> tuple[float, Step]:
    """Give out no log for now."""
    return 0.0, lambda pod: pod.print(LogChunk(b"", unreadable=words))


def serve(server: "FakeServer") -> tuple[float, Step]:
    """Open the HTTP server."""
    return 0.0, lambda pod: setattr(pod, "server", server)


def gone() -> tuple[float, Step]:
    """Take the pod away without kprof having asked for it."""
    return 0.0, lambda pod: pod.vanish()


def later(seconds: float, step: tuple[float, Step]) -> tuple[float, Step]:
    """Do a step some seconds after the one before."""
    return seconds + step[0], step[1]


Script = Sequence[tuple[float, Step]]


@dataclass
class FakeServer:
    """The server of vLLM: /health, /metrics, /v1/models and one streamed completion, with block accounting.

    `held_blocks` says how many blocks one request holds, given prompt and generated tokens; None is vLLM's arithmetic.
    """

    num_gpu_blocks: int = 1443
    block_size: int = 128
    max_model_len: int = 16000
    healthy: bool = True
    held_blocks: Callable[[int, int], float] | None = None
    status: Mapping[str, int] = field(default_factory=dict)
    prompts: list[int] = field(default_factory=list)
    open_requests: int = 0
    _generated: int = 0
    _total: int = 0

    def metrics(self) -> bytes:
        """Answer /metrics; a running request is one token further at each reading."""
        used = 0.0
        if self.open_requests:
            self._generated += 1
            self._total += 1
            prompt = self.prompts[-1]
            used = -(-(prompt + self._generated) // self.block_size)
            if self.held_blocks is not None:
                used = self.held_blocks(prompt, self._generated)
        return (
            f'vllm:num_requests_running{{engine="0"}} {self.open_requests}\n'
            f'vllm:kv_cache_usage_perc{{engine="0"}} {used / (self.num_gpu_blocks - 1)!r}\n'
            f'vllm:generation_tokens_total{{engine="0"}} {self._total}\n'
            f'vllm:cache_config_info{{block_size="{self.block_size}",num_gpu_blocks="{self.num_gpu_blocks}"}} 1.0\n'
        ).encode()

    async def completion(self) -> AsyncIterator[bytes]:
        """Stream until the client goes away."""
        self.open_requests += 1
        self._generated = 0
        try:
            while True:
                yield b"data: {}\n\n"
                await asyncio.sleep(0.5)
        finally:
            self.open_requests -= 1

    def answer(self, method: str, path: str, body: bytes | None) -> tuple[int, AsyncIterator[bytes]]:
        """Answer one request; an unknown one is an error of the test."""
        if not self.healthy:
            raise PodUnreachableError("connection refused")
        status = self.status.get(path, 200)
        if (method, path) == ("POST", "/v1/completions") and status == 200:
            self.prompts.append(len(json.loads(body or b"{}")["prompt"]))
            return 200, self.completion()
        known: dict[tuple[str, str], Callable[[], bytes]] = {
            ("GET", "/health"): lambda: b"",
            ("GET", "/metrics"): self.metrics,
            ("GET", "/v1/models"): lambda: json.dumps(
                {"data": [{"id": "served", "max_model_len": self.max_model_len}]}
            ).encode(),
            ("POST", "/v1/completions"): bytes,
        }
        assert (method, path) in known, f"unexpected request {method} {path}"
        return status, _once(known[method, path]() if status == 200 else b"no")


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


class FakePod:
    """One pod of the fake cluster."""

    def __init__(self, cluster: "FakeCluster", snapshot: PodSnapshot, devices: int) -> None:
        self.cluster = cluster
        self.snapshot = snapshot
        self.devices = devices
        self.chunks: list[LogChunk] = []
        self.server: FakeServer | None = None
        self.task: asyncio.Task[None] | None = None

    def show(self, **changes: Any) -> None:
        """Change the snapshot and tell the watchers."""
        self.snapshot = replace(self.snapshot, **changes)
        self.cluster.tell(Change(self.snapshot))

    def print(self, chunk: LogChunk) -> None:
        """Add to the log."""
        self.chunks.append(chunk)

    def vanish(self) -> None:
        """Be gone."""
        self.cluster.pods.pop(self.snapshot.name, None)
        self.cluster.tell(Change(self.snapshot, deleted=True))

    async def play(self, script: Script) -> None:
        """Do every step in its time."""
        for seconds, step in script:
            if seconds:
                await asyncio.sleep(seconds)
            step(self)


class FakeCluster:
    """Implements the port; `scripts` by point hash, `events` in the order in which they happened."""

    name = "fake"

    def __init__(self, scripts: Mapping[str, Script | PodRejectedError], *, devices: int | None = 8) -> None:
        self.scripts = dict(scripts)
        self.devices = devices
        self.events: list[tuple[str, str]] = []
        self.pods: dict[str, FakePod] = {}
        self.most_devices = 0
        self.check_error: Exception | None = None
        self.open_runs: set[str] = set()
        self.driven: set[str] = set()
        self.answering = True
        self.clock_skew_seconds: float | None = 0.0
        self.scaling: bool | None = False
        self.killed: set[str] = set()
        self._watchers: list[asyncio.Queue[Change]] = []
        self._uids = itertools.count(1)

    def tell(self, change: Change) -> None:
        """Send a change to every watcher."""
        for watcher in self._watchers:
            watcher.put_nowait(change)

    def add(self, manifest: PodManifest) -> FakePod:
        """Put a pod into the cluster and start its script."""
        script = self.scripts[manifest.labels[POINT_LABEL]]
        assert not isinstance(script, PodRejectedError)
        snapshot = PodSnapshot(manifest.name, f"uid-{next(self._uids)}", manifest.labels, Phase.PENDING)
        pod = FakePod(self, snapshot, manifest.devices)
        self.pods[manifest.name] = pod
        pod.task = asyncio.get_running_loop().create_task(pod.play(script))
        self.most_devices = max(self.most_devices, sum(each.devices for each in self.pods.values()))
        self.tell(Change(snapshot))
        return pod

    async def why_gated(self, pod: PodSnapshot) -> str | None:
        """Tell nothing."""
        assert pod.gated, "asked about a pod that no queue holds"
        return None

    async def scaling_up(self, pod: PodSnapshot) -> bool | None:
        """Tell what the test says."""
        assert pod.unschedulable, "asked about a pod that has its place"
        return self.scaling

    def look_command(self, *pods: str) -> str:
        """Name the pods."""
        return f"look at {' '.join(pods)}"

    async def check(self, manifests: Sequence[PodManifest]) -> None:
        """Refuse when the test says so."""
        self.events += [("check", manifest.name) for manifest in manifests]
        if self.check_error is not None:
            raise self.check_error

    async def free_devices(self, resource: str | None) -> int | None:
        """Return what no pod holds."""
        if resource is None or self.devices is None:
            return None
        return self.devices - sum(pod.devices for pod in self.pods.values())

    def hurry(self) -> None:
        """Nothing here is ever waited for."""

    @asynccontextmanager
    async def hold(self, run: str) -> AsyncIterator[None]:
        """Note that the run is driven while it is."""
        self.driven.add(run)
        try:
            yield
        finally:
            self.driven.discard(run)

    async def examine(self, manifests: Sequence[PodManifest]) -> AsyncIterator[Finding]:
        """Find nothing wrong."""
        yield Finding(Level.OK, "pods", f"{len(manifests)}")

    async def abandoned(self) -> list[str]:
        """Return the runs that the test says were killed."""
        return sorted(self.killed)

    async def leftovers(self) -> list[Leftover]:
        """Return the open runs with their pods."""
        return [Leftover(run, tuple(pod.snapshot.name for pod in self.pods.values())) for run in sorted(self.open_runs)]

    async def open_run(self, run: str) -> None:
        """Note that the run is open."""
        self.open_runs.add(run)
        self.events.append(("open", run))

    async def close_run(self, run: str) -> list[str]:
        """Note that the run is closed; pods that are left are an event of their own, and go."""
        assert run in self.open_runs, "a run that was not opened is closed"
        self.open_runs.discard(run)
        self.events += [("left", name) for name in self.pods]
        for pod in list(self.pods.values()):
            pod.vanish()
        self.events.append(("close", run))
        return []

    async def create(self, manifest: PodManifest) -> PodSnapshot:
        """Create or adopt the pod of a point that has a script."""
        point = manifest.labels[POINT_LABEL]
        assert point in self.scripts, f"unexpected pod {manifest.name}"
        script = self.scripts[point]
        if isinstance(script, PodRejectedError):
            self.events.append(("reject", manifest.name))
            raise script
        known = self.pods.get(manifest.name)
        if known is not None:
            assert known.snapshot.labels[SPEC_LABEL] == manifest.labels[SPEC_LABEL], "another pod has this name"
            self.events.append(("adopt", manifest.name))
            return known.snapshot
        self.events.append(("create", manifest.name))
        return self.add(manifest).snapshot

    async def get(self, name: str) -> PodSnapshot | None:
        """Return a pod."""
        pod = self.pods.get(name)
        return None if pod is None else pod.snapshot

    async def changes(self, run: str) -> AsyncIterator[Change]:
        """Yield what is there, then what changes."""
        queue: asyncio.Queue[Change] = asyncio.Queue()
        self._watchers.append(queue)
        try:
            yield Change(listing=[pod.snapshot for pod in self.pods.values()])
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(queue)

    async def logs(
        self, pod: PodSnapshot, finished: Callable[[], bool], idle_seconds: float = 0.0
    ) -> AsyncIterator[LogChunk]:
        """Yield what the pod printed, and what it still prints."""
        fake = self.pods.get(pod.name)
        if fake is None:
            return
        place = 0
        while True:
            over = finished()
            while place < len(fake.chunks):
                place += 1
                yield fake.chunks[place - 1]
            if over:
                return
            await asyncio.sleep(0.2)

    @asynccontextmanager
    async def request(
        self, pod: PodSnapshot, method: str, path: str, body: bytes | None = None, *, timeout_seconds: float
    ) -> AsyncIterator[HttpReply]:
        """Ask the pod's server."""
        fake = self.pods.get(pod.name)
        if fake is None or fake.server is None or fake.snapshot.finished:
            raise PodUnreachableError("connection refused")
        status, chunks = fake.server.answer(method, path, body)
        yield HttpReply(status, chunks)

    async def delete(self, pod: PodSnapshot) -> None:
        """Delete a pod; deleting it twice is no error."""
        self.events.append(("delete", pod.name))
        await asyncio.sleep(0.1)
        fake = self.pods.get(pod.name)
        if fake is not None and fake.snapshot.uid == pod.uid:
            if fake.task is not None:
                fake.task.cancel()
            fake.vanish()
