"""The port: what kprof asks of a cluster, and the few shapes that pass through it."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from orchestrator.errors import ClusterError, KprofError
from orchestrator.matrix.point import Queue

RUN_LABEL = "kprof.io/run"
POINT_LABEL = "kprof.io/point"
POINT_ID_LABEL = "kprof.io/point-id"
ATTEMPT_LABEL = "kprof.io/attempt"
SPEC_LABEL = "kprof.io/spec"
MANAGED = "app.kubernetes.io/managed-by=kprof"  # a label selector
CONTAINER = "vllm"
HTTP_PORT = 8000


class Phase(StrEnum):
    """Phase of a pod, as Kubernetes names it."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class PodManifest:
    """A pod ready to be created; `body` is the Kubernetes object, `resource` and `devices` what it takes.

    With a `queue`, Kueue decides when it may start.
    """

    name: str
    labels: Mapping[str, str]
    body: Mapping[str, Any]
    resource: str | None
    devices: int
    queue: Queue | None = None


@dataclass(frozen=True, slots=True)
class Container:
    """State of the vLLM container: `waiting`, `running` or `terminated`; `restarts` counts its ends before this one."""

    state: str
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class PodSnapshot:
    """A pod as last seen; `reason` and `message` are the pod's own, `unschedulable` the scheduler's words.

    `gated` says that a queue holds the pod back, in the queue's words: neither scheduler nor kubelet know it yet.
    """

    name: str
    uid: str
    labels: Mapping[str, str]
    phase: Phase
    reason: str = ""
    message: str = ""
    node: str | None = None
    ip: str | None = None
    unschedulable: str | None = None
    gated: str | None = None
    disruption: str | None = None
    deleting: bool = False
    container: Container | None = None
    runs_as: str | None = None

    @property
    def pod_name(self) -> str:
        """Return the name under which log and HTTP server are reached: a Job gives its pod another one."""
        return self.runs_as or self.name

    @property
    def started(self) -> bool:
        """Say whether the container runs or ran: only then is there a log."""
        return self.container is not None and self.container.state in {"running", "terminated"}

    @property
    def finished(self) -> bool:
        """Say whether the container ended, or never will start."""
        ended = self.container is not None and self.container.state == "terminated"
        return ended or self.phase in {Phase.SUCCEEDED, Phase.FAILED}


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the run's pods: `pod` is gone when `deleted`; `listing` replaces all that was known."""

    pod: PodSnapshot | None = None
    deleted: bool = False
    listing: Sequence[PodSnapshot] | None = None


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Log bytes of whole lines; `gap` says that lines before them, or the last lines of all, were lost.

    Without data, `unreadable` says why the log cannot be read at present; None, that it can be again, or that a line
    grew which has no end yet.
    """

    data: bytes
    gap: bool = False
    unreadable: str | None = None


@dataclass(slots=True)
class HttpReply:
    """An HTTP answer of a pod; `chunks` yields the body as it comes."""

    status: int
    chunks: AsyncIterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)

    async def body(self, limit: int = 8 << 20) -> bytes:
        """Read the whole body, at most `limit` bytes of it."""
        data = bytearray()
        async for chunk in self.chunks:
            data += chunk
            if len(data) > limit:
                break
        return bytes(data[:limit])


class Level(StrEnum):
    """How bad a finding is; a sweep cannot run with one that fails."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """What an examination of a cluster found, and the command that mends it."""

    level: Level
    subject: str
    text: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Leftover:
    """What a cluster still holds of one run: names of its pods and of all other objects."""

    run: str
    pods: tuple[str, ...]
    others: tuple[str, ...] = ()


class PodRejectedError(KprofError):
    """The cluster refused this pod; `kind` is the failure kind of the result.

    `waits` says that the same pod may be accepted later: a quota or the devices are in use.
    """

    def __init__(self, kind: str, message: str, *, waits: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.waits = waits


class PodStuckError(ClusterError):
    """A deleted pod does not go away: its node is gone, or a finalizer holds it. Its devices may still be held."""


class PodUnreachableError(KprofError):
    """The pod does not answer over HTTP (yet); transport trouble, never a verdict on the point."""


class Cluster(Protocol):
    """What a cluster must do. Every call retries transport trouble itself and raises ClusterError when it lasts."""

    @property
    def name(self) -> str:
        """Return how reports call this cluster, for example `kubernetes` or `local`."""
        ...

    @property
    def answering(self) -> bool:
        """Say whether the cluster answered when it was last asked; while it does not, no point can be judged."""
        ...

    @property
    def clock_skew_seconds(self) -> float | None:
        """Return how far this machine's clock is ahead of the cluster's; None when it is not known."""
        ...

    async def why_gated(self, pod: PodSnapshot) -> str | None:
        """Return why a queue holds a pod back, in the queue's words; None when the cluster does not tell."""
        ...

    async def scaling_up(self, pod: PodSnapshot) -> bool | None:
        """Say whether a node is being added for a pod that fits none; None when the cluster does not tell."""
        ...

    def look_command(self, *pods: str) -> str:
        """Return the command that shows a person what became of these pods."""
        ...

    async def check(self, manifests: Sequence[PodManifest]) -> None:
        """Find what would stop every point, before anything is created; raises ClusterError or UsageError."""
        ...

    def examine(self, manifests: Sequence[PodManifest]) -> AsyncIterator[Finding]:
        """Yield what speaks for and against running these pods here; raises ClusterError when nobody answers."""
        ...

    async def free_devices(self, resource: str | None) -> int | None:
        """Return how many devices of a resource could be taken now; None when the cluster does not tell."""
        ...

    def hurry(self) -> None:
        """Sit out no more long outages: kprof was asked to stop, and only cleans up."""
        ...

    def hold(self, run: str) -> AbstractAsyncContextManager[None]:
        """Be the only kprof that drives the run; raises RunDrivenError when another one does, or takes over."""
        ...

    async def open_run(self, run: str) -> None:
        """Create the owner of the run's pods; deleting it takes them along."""
        ...

    async def close_run(self, run: str) -> list[str]:
        """Delete the run's owner and whatever is left of its pods; returns the pods that do not go away."""
        ...

    async def abandoned(self) -> list[str]:
        """Return runs of any kprof whose driver was killed long ago, and which nobody has resumed."""
        ...

    async def leftovers(self) -> list[Leftover]:
        """Return what is there of any run of kprof, driven or not."""
        ...

    async def create(self, manifest: PodManifest) -> PodSnapshot:
        """Create the pod, or adopt an equal one of the same name; raises PodRejectedError."""
        ...

    async def get(self, name: str) -> PodSnapshot | None:
        """Return a pod by name, None when there is none."""
        ...

    def changes(self, run: str) -> AsyncIterator[Change]:
        """Yield a full listing of the run's pods first, then every change, for ever."""
        ...

    def logs(
        self, pod: PodSnapshot, finished: Callable[[], bool], idle_seconds: float = ...
    ) -> AsyncIterator[LogChunk]:
        """Yield the container's log from its first line, once each, until `finished()` and the log is read out.

        After a silence of `idle_seconds` the connection is no longer trusted, and the log taken up anew.
        """
        ...

    def request(
        self, pod: PodSnapshot, method: str, path: str, body: bytes | None = None, *, timeout_seconds: float
    ) -> AbstractAsyncContextManager[HttpReply]:
        """Call the pod's HTTP server; raises PodUnreachableError when it cannot be reached."""
        ...

    async def delete(self, pod: PodSnapshot) -> None:
        """Delete the pod with this uid and wait until it is gone; no error when it is gone already."""
        ...
