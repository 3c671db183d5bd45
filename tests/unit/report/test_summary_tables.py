"""The tables people copy: right columns, right rounding, never a simulated figure without its mark."""

import csv
import io
from typing import Any

import pytest
from rich.console import Console

from orchestrator.matrix.point import Point
from orchestrator.profile.result import Source
from orchestrator.report.summary import Summary, summarise
from orchestrator.report.tables import as_csv, markdown, printable, terminal
from orchestrator.store import RunRecord, StoredPoint, StoredResult
from tests.fakes.matrix import point
from tests.fakes.results import FACTS, document

PUBLISHED = "| Model | Weights | Activation | Non-torch | CUDA Graph | KV Cache | TP | Util | max-model-len |"
ARGUMENTS = {"tp": 1, "gpu-memory-utilization": 0.9, "max-model-len": 16000}


def _run(source: str = "measured") -> RunRecord:
    return RunRecord("aaaa", 1, "h100", "d", "local", source, "2026-01-01T00:00:00Z", None)


def _stored(of: Point, **fields: Any) -> StoredResult:
    data = document(of, **fields)
    kept = StoredPoint(
        of.hash, of.id, of.label, of.model, of.image, of.vllm_version, dict(of.arguments), {"count": 1}, of.expect
    )
    kind = None if data["failure"] is None else data["failure"]["kind"]
    return StoredResult(kept, 0, data["source"], data["outcome"], kind, data, "2026-01-01T00:00:00Z")


def _summary(*results: StoredResult, source: str = "measured", missing: tuple[str, ...] = ()) -> Summary:
    return summarise(_run(source), results, missing)


def _ready(label: str = "Llama-3.1-8B", **fields: Any) -> StoredResult:
    return _stored(point(label=label, arguments=ARGUMENTS), **fields)


def _failed(label: str = "R1", line: str = "RuntimeError: no", **fields: Any) -> StoredResult:
    return _stored(point(label=label, arguments={"seed": 1}, expect="oom.load"), kind="oom.load", line=line, **fields)


def _terminal(summary: Summary, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    terminal(summary, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_measured_table_has_exactly_the_published_columns_and_rounding() -> None:
    """Two decimals, negative figures with their sign, and no word about simulation anywhere."""
    lines = markdown(_summary(_ready())).splitlines()
    assert lines[0] == PUBLISHED
    assert lines[2] == "| Llama-3.1-8B | 14.99 | 4.76 | 0.13 | -0.45 | 51.38 | 1 | 0.9 | 16000 |"
    for text in (markdown(_summary(_ready())), as_csv(_summary(_ready())), _terminal(_summary(_ready()))):
        assert "SIMULATED" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-0.8849, "-0.88"),
        (-0.886, "-0.89"),
        (0.1, "0.10"),
        (64.446, "64.45"),
        (0.0, "0.00"),
        (-1.0, "-1.00"),
        (3, "3.00"),
    ],
)
def test_sizes_are_rounded_to_two_decimals(value: float, text: str) -> None:
    """Negative ones are rounded like positive ones."""
    row = markdown(_summary(_ready(facts={"cuda_graph_gib": value}))).splitlines()[2]
    assert row.split(" | ")[4] == text


def test_a_figure_that_rounds_to_nothing_has_no_sign() -> None:
    """`-0.00` would say that memory was freed."""
    assert "-0.00" not in markdown(_summary(_ready(facts={"cuda_graph_gib": -0.001})))


def test_what_is_unknown_is_a_dash_and_never_zero() -> None:
    """None is not 0, in any format."""
    summary = _summary(_ready(facts={"weights_gib": 1.0}))
    assert markdown(summary).splitlines()[2] == "| Llama-3.1-8B | 1.00 | - | - | - | - | 1 | 0.9 | 16000 |"
    (row,) = csv.DictReader(io.StringIO(as_csv(summary)))
    assert (row["weights"], row["activation"], row["kv cache"]) == ("1.00", "", "")
    assert summary.to_json()["rows"][0]["kv_cache_gib"] is None


SIMULATED_WAYS = {
    "the run is simulated": ({"source": Source.SIMULATED}, "SIMULATED"),
    "a row of a measured run is simulated": ({"source": Source.SIMULATED}, "measured"),
}


@pytest.mark.parametrize("way", SIMULATED_WAYS)
def test_a_simulated_figure_is_marked_wherever_it_is_printed(way: str) -> None:
    """Title, every row and the last line of the terminal; head and every row of Markdown; every row of CSV and JSON."""
    fields, run_source = SIMULATED_WAYS[way]
    summary = _summary(_ready(**fields), _failed(**fields), source=run_source)
    assert summary.simulated

    lines = _terminal(summary).splitlines()
    assert "SIMULATED" in lines[0]
    assert "SIMULATED" in next(line for line in lines if "Llama-3.1-8B" in line)
    assert "SIMULATED" in next(line for line in lines if "Failed" in line)
    assert "SIMULATED" in [line for line in lines if line.strip()][-1]

    text = markdown(summary)
    assert "SIMULATED" in text.splitlines()[0]
    tables = [line for line in text.splitlines() if line.startswith(("| Llama", "| R1"))]
    assert len(tables) == 2
    assert all(line.endswith("| SIMULATED |") for line in tables)

    assert [row["source"] for row in csv.DictReader(io.StringIO(as_csv(summary)))] == ["SIMULATED"] * 2
    data = summary.to_json()
    assert data["simulated"] is True
    assert {row["source"] for row in [*data["rows"], *data["failed"]]} == {"SIMULATED"}


def test_a_narrow_terminal_keeps_the_mark_and_the_figures() -> None:
    """80 columns cut neither a number nor the mark."""
    text = _terminal(_summary(_ready(source=Source.SIMULATED), source="SIMULATED"), width=80)
    assert text.count("SIMULATED") >= 2
    for figure in ("14.99", "4.76", "0.13", "-0.45", "51.38", "16000"):
        assert figure in text
    assert all(len(line) <= 80 for line in text.splitlines() if "14.99" in line)


def test_the_failed_table_names_cause_and_remedy() -> None:
    """In the order of the published one; what was not expected says so."""
    text = markdown(_summary(_failed(), _stored(point(arguments={"seed": 2}), kind="hang", line="no line for 9 s")))
    rows = [line for line in text.splitlines() if line.startswith("|")][-2:]
    assert rows[0] == "| R1 | 1 | OOM during load | no | do this |"
    assert "not expected" in rows[1]
    assert "no line for 9 s" in rows[1]


def test_causes_are_told_with_their_numbers() -> None:
    """The published table says GiB, not `ValueError`."""
    no_room = _stored(point(), kind="kv.no_room", facts={"weights_gib": 67.72, "kv_cache_gib": -1.44})
    assert _summary(no_room).failed[0].cause == "67.72 GiB weights, -1.44 GiB remaining"


def test_a_run_is_as_expected_only_when_every_point_is() -> None:
    """A missing result, an unexpected failure and an unexpected start each end in exit code 1."""
    ready, failed = _ready(), _failed()
    assert _summary(ready, failed).as_expected
    assert not _summary(ready, missing=("x",)).as_expected
    assert not _summary(_stored(point(), kind="hang")).as_expected
    assert not _summary(_stored(point(expect="oom.load"))).as_expected
    assert not _summary(_stored(point(expect="oom.load"), kind="hang")).as_expected


def test_what_a_reader_must_know_stands_under_the_table() -> None:
    """Flags, missing points and starts that should have failed."""
    summary = _summary(_ready(flags=("the log has gaps",)), _stored(point(expect="hang")), missing=("b-tp2",))
    for text in (markdown(summary), _terminal(summary)):
        assert "the log has gaps" in text
        assert "b-tp2" in text
        assert "failure was expected" in text


# Hostile text: a log, a cluster and a matrix are written by others.

UNSAFE = [chr(c) for c in (0, 7, 8, 13, 0x1B, 0x9B, 0x61C, 0x200F, 0x2028, 0x202C, 0x202E, 0x2066, 0x2069, 0xFEFF)]
BAD = "over | pipe <b> " + "x".join(UNSAFE)


def _hostile() -> Summary:
    bad = _failed(line=BAD, remedy=BAD, flags=(BAD,))
    run = RunRecord("a", 1, "m", "d", BAD, "measured", "now", None)
    return summarise(run, [bad, _ready(label="x|y<b>", flags=(BAD,))], ["a"])


@pytest.mark.parametrize("output", [markdown, as_csv, _terminal])
@pytest.mark.parametrize("mark", UNSAFE, ids=[f"{ord(mark):04x}" for mark in UNSAFE])
def test_no_control_or_direction_mark_reaches_the_output(output: Any, mark: str) -> None:
    """A terminal is not driven and text is not turned around by what a pod printed."""
    assert mark not in output(_hostile())


def test_printable_keeps_ordinary_text() -> None:
    """Letters of every language are no danger."""
    assert printable("Größe 模型 ÷ 3 — é") == "Größe 模型 ÷ 3 — é"


def test_a_pipe_in_markdown_does_not_make_a_column() -> None:
    """And HTML in a log stays text, notes included."""
    text = markdown(_hostile())
    assert "x\\|y&lt;b>" in text
    assert "<b>" not in text
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| ")}
    assert widths == {10, 6}


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_a_formula_in_a_csv_cell_is_inert(start: str) -> None:
    """A spreadsheet shows it as text; a negative figure stays a figure."""
    formula = f'{start}HYPERLINK("http://x","y")'
    summary = _summary(_ready(label=formula), _failed(label=formula, line=formula, remedy=formula))
    for row in csv.reader(io.StringIO(as_csv(summary))):
        for cell in row:
            assert cell in {"", "-0.45"} or cell[0] not in "=+-@"
    assert FACTS["cuda_graph_gib"] == -0.45


def test_csv_has_one_row_for_every_point() -> None:
    """Ready and failed alike, each with as many cells as the head."""
    rows = list(csv.reader(io.StringIO(as_csv(_summary(_ready(), _failed())))))
    assert len(rows) == 3
    assert len({len(row) for row in rows}) == 1
    assert [row[rows[0].index("outcome")] for row in rows[1:]] == ["ready", "failed"]
