"""The summary of a run: one row for each point that started, one for each that did not."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.store import RunRecord, StoredResult

SIMULATED_NOTE = "SIMULATED: computed by kprof's simulator. Nothing in this table was measured on an accelerator."
TITLES: Mapping[str, str] = {
    "oom.load": "OOM during load",
    "oom.profile": "OOM during profiling",
    "oom.graph_capture": "OOM during graph capture",
    "oom.warmup": "OOM during warm-up",
    "oom.runtime": "OOM while serving",
    "oom": "OOM",
    "kv.no_room": "No KV cache room",
    "kv.context_too_long": "Context too long",
    "gpu.busy": "Device busy",
    "gpu.insufficient": "Too few devices",
    "gpu.hardware": "Device fault",
    "config.argument": "Bad argument",
    "config.context_exceeds_model": "Context beyond the model",
    "config.parallelism": "Not divisible",
    "config.unsupported": "Not supported",
    "model.access": "No access to the model",
    "model.missing": "No such model",
    "model.unreachable": "Model hub unreachable",
    "comm.failure": "Communication failure",
    "host.oom": "Out of host memory",
    "engine.died": "Engine died",
    "hang": "Hang",
}
MAX_CAUSE = 160


@dataclass(frozen=True, slots=True)
class Row:
    """A point that started; sizes in GiB, None where the log does not tell."""

    point: str
    model: str
    image: str
    vllm_version: str | None
    weights_gib: float | None
    activation_gib: float | None
    non_torch_gib: float | None
    cuda_graph_gib: float | None
    kv_cache_gib: float | None
    tensor_parallel_size: int
    gpu_memory_utilization: float | None
    max_model_len: int | None
    kv_cache_tokens: int | None
    max_concurrency: float | None
    source: str
    as_expected: bool


@dataclass(frozen=True, slots=True)
class FailedRow:
    """A point that did not start: the kind of failure, its cause in words, and what would start."""

    point: str
    model: str
    image: str
    vllm_version: str | None
    tensor_parallel_size: int
    gpu_memory_utilization: float | None
    max_model_len: int | None
    failure: str
    title: str
    cause: str
    remedy: str | None
    source: str
    as_expected: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """A whole run, in the order of its matrix; `notes` are what a reader must know about single rows."""

    run: RunRecord
    rows: tuple[Row, ...]
    failed: tuple[FailedRow, ...]
    notes: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def all_rows(self) -> tuple[Row | FailedRow, ...]:
        """Return every row, started or not."""
        return (*self.rows, *self.failed)

    @property
    def simulated(self) -> bool:
        """Say whether any figure is simulated."""
        return self.run.source != "measured" or any(row.source != "measured" for row in self.all_rows)

    @property
    def as_expected(self) -> bool:
        """Say whether every point has a result, and the one its matrix expects."""
        return not self.missing and all(row.as_expected for row in self.all_rows)

    def to_json(self) -> dict[str, Any]:
        """Return the object of `kprof summary --format json`."""
        return {
            "run": asdict(self.run),
            "simulated": self.simulated,
            "as_expected": self.as_expected,
            "rows": [asdict(row) for row in self.rows],
            "failed": [asdict(row) for row in self.failed],
            "notes": list(self.notes),
            "missing": list(self.missing),
        }


def summarise(run: RunRecord, results: Sequence[StoredResult], missing: Sequence[str]) -> Summary:
    """Build the summary of stored results; `missing` are ids of selected points without one."""
    rows: list[Row] = []
    failed: list[FailedRow] = []
    notes: list[str] = []
    for result in results:
        if result.outcome == "ready":
            rows.append(_row(result))
        else:
            failed.append(_failed(result))
        notes += [f"{result.point.id}: {flag}" for flag in result.document["flags"]]
    return Summary(run, tuple(rows), tuple(failed), tuple(notes), tuple(missing))


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _version(result: StoredResult) -> str | None:
    version: str | None = result.document["start_up"]["vllm_version"]
    return version or result.point.vllm_version


def _utilization(result: StoredResult) -> float | None:
    facts = result.document["start_up"]["facts"]
    value = result.point.arguments.get("gpu-memory-utilization", facts.get("utilization_ratio"))
    return float(value) if isinstance(value, int | float) else None


def _max_model_len(result: StoredResult) -> int | None:
    facts = result.document["start_up"]["facts"]
    return _whole(result.point.arguments.get("max-model-len")) or _whole(facts.get("concurrency_tokens"))


def _row(result: StoredResult) -> Row:
    facts: Mapping[str, float] = result.document["start_up"]["facts"]
    return Row(
        point=result.point.id,
        model=result.point.label,
        image=result.point.image,
        vllm_version=_version(result),
        weights_gib=facts.get("weights_gib"),
        activation_gib=facts.get("activation_gib"),
        non_torch_gib=facts.get("non_torch_gib"),
        cuda_graph_gib=facts.get("cuda_graph_gib"),
        kv_cache_gib=facts.get("kv_cache_gib"),
        tensor_parallel_size=_whole(result.point.arguments.get("tensor-parallel-size")) or 1,
        gpu_memory_utilization=_utilization(result),
        max_model_len=_max_model_len(result),
        kv_cache_tokens=_whole(facts.get("kv_cache_tokens")),
        max_concurrency=facts.get("max_concurrency"),
        source=result.source,
        as_expected=result.point.expect is None,
    )


def _failed(result: StoredResult) -> FailedRow:
    failure = result.document["failure"]
    kind = failure["kind"]
    return FailedRow(
        point=result.point.id,
        model=result.point.label,
        image=result.point.image,
        vllm_version=_version(result),
        tensor_parallel_size=_whole(result.point.arguments.get("tensor-parallel-size")) or 1,
        gpu_memory_utilization=_utilization(result),
        max_model_len=_max_model_len(result),
        failure=kind,
        title=TITLES.get(kind, kind),
        cause=_cause(result.document),
        remedy=failure["remedy"],
        source=result.source,
        as_expected=result.point.expect == kind,
    )


def _cause(document: Mapping[str, Any]) -> str:
    """Say in one sentence why, with the numbers of the log where they tell more than its line."""
    facts: Mapping[str, float] = document["start_up"]["facts"]
    failure = document["failure"]
    numbers: Mapping[str, float] = document["start_up"]["failure"] or {}
    kind = failure["kind"]
    if kind == "kv.no_room" and {"weights_gib", "kv_cache_gib"} <= facts.keys():
        return f"{facts['weights_gib']:.2f} GiB weights, {facts['kv_cache_gib']:.2f} GiB remaining"
    if kind == "kv.context_too_long" and {"needed_gib", "available_gib"} <= numbers.keys():
        needed, available = numbers["needed_gib"], numbers["available_gib"]
        return f"{needed:.2f} GiB KV cache for one request, {available:.2f} GiB available"
    if kind == "oom.load" and "total_gib" in numbers:
        return f"Weights exceeded the device ({numbers['total_gib']:.2f} GiB)"
    line = " ".join(str(failure["line"]).split())
    for mark in ("Error: ", "error: ", "] "):
        head, found, tail = line.partition(mark)
        if found and len(head) < len(line) // 2:
            line = tail
    return line if len(line) <= MAX_CAUSE else line[:MAX_CAUSE] + "…"
