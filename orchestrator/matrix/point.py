"""One configuration of a sweep, resolved completely before anything starts."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.vllm.arguments import PARALLEL_SIZES, ArgumentValue, serve_argv

RESOURCES: Mapping[str, str | None] = {
    "nvidia": "nvidia.com/gpu",
    "amd": "amd.com/gpu",
    "intel": "gpu.intel.com/xe",
    "ascend": "huawei.com/Ascend910",
    "cpu": None,
}


def _implicit(name: str, value: ArgumentValue) -> bool:
    return name in PARALLEL_SIZES and str(value) == "1"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """The devices one point takes; `resource` is None where no device is asked for (vLLM on CPU)."""

    vendor: str
    resource: str | None
    product: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of one point in seconds: queueing, start-up, no log progress, and the live probe."""

    queue_seconds: int = 3600
    startup_seconds: int = 3600
    stall_seconds: int = 1800
    probe_seconds: int = 120

    @property
    def deadline_seconds(self) -> int:
        """Return activeDeadlineSeconds of the pod: its image, start-up, probe, and time to record and delete.

        The limit of the start-up holds twice, as the matrix allows: until the container runs, and from there to ready.
        The time to record is ten minutes, less where start-up itself is given less: all of this devices may leak.
        """
        return 2 * self.startup_seconds + self.probe_seconds + max(60, min(600, self.startup_seconds))


@dataclass(frozen=True, slots=True)
class Queue:
    """A LocalQueue of Kueue in the sweep's namespace, and the WorkloadPriorityClass to wait with."""

    name: str
    priority_class: str | None = None


@dataclass(frozen=True, slots=True)
class PodOverlay:
    """Pod fields from the matrix, as Kubernetes spells them; they are merged over kprof's own."""

    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Point:
    """One configuration: `id` is readable and unique in its matrix, `hash` identifies the configuration."""

    id: str
    group: str
    label: str
    model: str
    image: str
    vllm_version: str | None
    arguments: Mapping[str, ArgumentValue]
    env: Mapping[str, str]
    accelerator: Accelerator
    overlay: PodOverlay
    timeouts: Timeouts
    cache_claim: str | None
    token_secret: tuple[str, str] | None
    expect: str | None
    queue: Queue | None = None

    @property
    def argv(self) -> list[str]:
        """Return the arguments of `vllm serve`, without host and port."""
        return serve_argv(self.model, self.arguments)

    @property
    def hash(self) -> str:
        """Return 16 hex digits over all that changes what runs; names, expectations and limits do not count."""
        # Parallel sizes default to 1 in every version; written or not, the configuration is the same.
        counted = {name: value for name, value in self.arguments.items() if not _implicit(name, value)}
        content = {
            "image": self.image,
            "argv": serve_argv(self.model, counted),
            "env": dict(sorted(self.env.items())),
            "accelerator": [self.accelerator.resource, self.accelerator.product, self.accelerator.count],
            "pod": self.overlay.fields,
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def argument(self, name: str) -> ArgumentValue | None:
        """Return one argument by its canonical name, None when vLLM's default holds."""
        return self.arguments.get(name)


def matrix_digest(points: list[Point]) -> str:
    """Return 16 hex digits that identify a matrix by its points, whatever their order."""
    text = ",".join(sorted(point.hash for point in points))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
