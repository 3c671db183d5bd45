"""What the store returns: runs, points and results as they were recorded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping

from orchestrator.matrix.point import Point


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One sweep; `number` counts runs of this store from 1, `source` is `measured` or `SIMULATED`."""

    id: str
    number: int
    matrix: str
    digest: str
    cluster: str
    source: str
    created_at: str
    finished_at: str | None


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """One point of a run as it was asked for."""

    hash: str
    id: str
    label: str
    model: str
    image: str
    vllm_version: str | None
    arguments: Mapping[str, Any]
    accelerator: Mapping[str, Any]
    expect: str | None


@dataclass(frozen=True, slots=True)
class StoredResult:
    """One result: its point, where its numbers come from, and the whole document."""

    point: StoredPoint
    attempt: int
    source: str
    outcome: str
    failure_kind: str | None
    document: Mapping[str, Any]
    recorded_at: str


def run_of(row: RowMapping) -> RunRecord:
    """Return the run of a row of `runs`."""
    return RunRecord(**{name: value for name, value in row.items() if name != "kprof_version"})


def point_of(row: RowMapping) -> StoredPoint:
    """Return the point of a row that holds the columns of `points`."""
    names = ("hash", "id", "label", "model", "image", "vllm_version", "arguments", "accelerator", "expect")
    return StoredPoint(**{name: row[name] for name in names})


def result_of(row: RowMapping) -> StoredResult:
    """Return the result of a row that joins `results` to `points`."""
    names = ("attempt", "source", "outcome", "failure_kind", "document", "recorded_at")
    return StoredResult(point_of(row), **{name: row[name] for name in names})


def row_of(run_id: str, position: int, point: Point) -> dict[str, Any]:
    """Return the row of `points` that describes a point."""
    accelerator = point.accelerator
    return {
        "run_id": run_id,
        "hash": point.hash,
        "position": position,
        "id": point.id,
        "label": point.label,
        "model": point.model,
        "image": point.image,
        "vllm_version": point.vllm_version,
        "arguments": dict(point.arguments),
        "accelerator": {"vendor": accelerator.vendor, "product": accelerator.product, "count": accelerator.count},
        "expect": point.expect,
    }
