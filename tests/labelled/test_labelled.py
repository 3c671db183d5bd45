"""Any folder of labelled logs, named by KPROF_LABELLED_LOGS, read as its labels say.

`labels.jsonl` holds one object a log: `log` (the file), `facts`, `failure_kind_any_of` (null: no failure),
`engine_ready` and, where somebody made sure, `absent`: facts that the log does not give. The last start-up of a file
counts; `start` names another one, from 1.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.vllm_log import StartUp, parse_log

ROUNDING_GIB = 0.006  # the last printed digit, where a figure is printed twice
ROUNDING_RATIO = 1e-4


def _labels() -> list[Any]:
    folder = os.environ.get("KPROF_LABELLED_LOGS")
    if not folder:
        why = "LABELLED LOGS NOT READ: set KPROF_LABELLED_LOGS to a folder with labels.jsonl"
        return [pytest.param({}, Path(), marks=pytest.mark.skip(reason=why), id="none")]
    labels = [json.loads(line) for line in Path(folder, "labels.jsonl").read_text("utf-8").splitlines()]
    return [pytest.param(label, _file(Path(folder), label["log"]), id=label["log"]) for label in labels]


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    return path if path.exists() else next(folder.rglob(Path(name).name))


def _start_up(label: dict[str, Any], path: Path) -> StartUp:
    found = parse_log(path.read_bytes())
    telling = [start_up for start_up in found if start_up.tells_something] or found
    return telling[label["start"] - 1] if "start" in label else telling[-1]


@pytest.mark.parametrize(("label", "path"), _labels())
def test_a_labelled_log_reads_as_its_label_says(label: dict[str, Any], path: Path) -> None:
    """Every labelled fact, the cause, readiness, and nothing that the log does not give."""
    found = _start_up(label, path)
    wrong = {
        name: (value, found.facts.get(name))
        for name, value in label["facts"].items()
        if value is not None and found.facts.get(name) != pytest.approx(value, rel=ROUNDING_RATIO, abs=ROUNDING_GIB)
    }
    assert wrong == {}
    assert not found.facts.keys() & set(label.get("absent", []))
    assert (found.failure.kind if found.failure else None) in label["failure_kind_any_of"]
    if label["engine_ready"] is not None:
        assert found.engine_ready is label["engine_ready"]
