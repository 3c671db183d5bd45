"""The summary as text: a terminal table, Markdown, CSV. Foreign text is stripped of control characters."""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.report.summary import SIMULATED_NOTE, FailedRow, Row, Summary

COLUMNS = (
    "Model",
    "Weights",
    "Activation",
    "Non-torch",
    "CUDA Graph",
    "KV Cache",
    "TP",
    "Util",
    "max-model-len",
)
# The same headings, broken so that the table fits 80 columns.
NARROW_COLUMNS = (
    "Model",
    "Weights",
    "Activa-\ntion",
    "Non-\ntorch",
    "CUDA\nGraph",
    "KV\nCache",
    "TP",
    "Util",
    "max-\nmodel-len",
)
WIDE_COLUMNS = 100
CSV_ENDS = ("outcome", "failure", "cause", "remedy", "source")
FAILED_COLUMNS = ("Model", "TP", "Failure", "Root Cause", "Remedy")
UNITS_NOTE = (
    'All values in GiB. "Activation" = torch peak memory increase. "CUDA Graph" = memory change during graph capture '
    "(negative = freed)."
)
# Controls, format marks (which reorder or hide text), line and paragraph separators, lone surrogates: none may
# reach a terminal or a document from a log or a cluster.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    """Return foreign text that is safe to print."""
    if text.isprintable():
        return text
    return "".join("·" if unicodedata.category(letter) in _UNSAFE_CATEGORIES else letter for letter in text)


def _gib(value: float | None) -> str:
    # Adding 0.0 takes the sign off a zero: -0.00 would say that memory was freed.
    return "-" if value is None else f"{round(value, 2) + 0.0:.2f}"


def _cells(row: Row) -> list[str]:
    return [
        printable(row.model),
        _gib(row.weights_gib),
        _gib(row.activation_gib),
        _gib(row.non_torch_gib),
        _gib(row.cuda_graph_gib),
        _gib(row.kv_cache_gib),
        str(row.tensor_parallel_size),
        "-" if row.gpu_memory_utilization is None else f"{row.gpu_memory_utilization:g}",
        "-" if row.max_model_len is None else str(row.max_model_len),
    ]


def _rows(summary: Summary) -> list[list[str]]:
    """Return the cells of every row; rows that no column tells apart carry the point's id beside the model."""
    cells = [_cells(row) for row in summary.rows]
    keys = [(row[0], *row[6:]) for row in cells]
    for row, key, item in zip(cells, keys, summary.rows, strict=True):
        if keys.count(key) > 1:
            row[0] = f"{row[0]} [{item.point}]"
    return cells


def _failed_cells(row: FailedRow) -> list[str]:
    title = row.title if row.as_expected else f"{row.title} (not expected)"
    return [
        printable(row.model),
        str(row.tensor_parallel_size),
        title,
        printable(row.cause),
        printable(row.remedy or "-"),
    ]


def _headers(summary: Summary, columns: Sequence[str]) -> list[str]:
    # A measured table has exactly the columns of the published one; any other says so in every row.
    return [*columns, "Source"] if summary.simulated else list(columns)


def _with_source(summary: Summary, row: Row | FailedRow, cells: list[str]) -> list[str]:
    return [*cells, row.source] if summary.simulated else cells


def terminal(summary: Summary, console: Console) -> None:
    """Print both tables to a console."""
    mark = " (SIMULATED)" if summary.simulated else ""
    title = f"Run {summary.run.number} of {summary.run.matrix} on {printable(summary.run.cluster)}{mark}"
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    # On a narrow terminal the mark is cut to its first letters; neither it nor a figure is ever dropped.
    wide = console.width >= WIDE_COLUMNS
    narrow = [*NARROW_COLUMNS, "Src"] if summary.simulated else NARROW_COLUMNS
    for header in _headers(summary, COLUMNS) if wide else narrow:
        left = header in {"Model", "Source", "Src"}
        table.add_column(header, justify="left" if left else "right", no_wrap=header != "Model", overflow="fold")
    for row, plain in zip(summary.rows, _rows(summary), strict=True):
        cells = _with_source(summary, row, plain)
        if not wide and summary.simulated:
            cells = [*plain, row.source[:3]]
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    console.print(Text(UNITS_NOTE), soft_wrap=not console.is_terminal)
    if summary.failed:
        console.print(Text(f"\nFailed configurations{mark}"))
        for item in summary.failed:
            model, size, title, cause, remedy = _failed_cells(item)
            expected = ", as expected" if item.as_expected else ""
            console.print(
                Text(f"  {model}, TP {size} [{item.point}]: {title}{expected}"), soft_wrap=not console.is_terminal
            )
            console.print(Text(f"    cause:  {cause}"), soft_wrap=not console.is_terminal)
            console.print(Text(f"    remedy: {remedy}"), soft_wrap=not console.is_terminal)
    console.print()
    for line in _footer(summary):
        console.print(Text(line), soft_wrap=not console.is_terminal)


def _merges_graphs(version: str | None) -> bool:
    release = re.match(r"(\d{1,4})\.(\d{1,4})", version or "")
    return release is not None and (int(release.group(1)), int(release.group(2))) >= (0, 27)


def _footer(summary: Summary) -> list[str]:
    lines = [f"Note: {printable(note)}" for note in summary.notes]
    if any(_merges_graphs(row.vllm_version) for row in summary.rows):
        lines.append("From vLLM 0.27 the activation includes the estimated CUDA graphs: do not add both.")
    lines += [f"No result: {point}" for point in summary.missing]
    unexpected = [row.point for row in summary.rows if not row.as_expected]
    lines += [f"Started, although a failure was expected: {point}" for point in unexpected]
    return [*lines, SIMULATED_NOTE] if summary.simulated else lines


def markdown(summary: Summary) -> str:
    """Return both tables as Markdown, in the columns and rounding of the published H100 table."""
    parts = [f"**{SIMULATED_NOTE}**", ""] if summary.simulated else []
    rows = [_with_source(summary, row, cells) for row, cells in zip(summary.rows, _rows(summary), strict=True)]
    parts += _markdown_table(_headers(summary, COLUMNS), rows)
    parts += ["", UNITS_NOTE]
    if summary.failed:
        failed = [_with_source(summary, row, _failed_cells(row)) for row in summary.failed]
        parts += ["", "### Failed Configurations", ""]
        parts += _markdown_table(_headers(summary, FAILED_COLUMNS), failed)
    footer = [line for line in _footer(summary) if line != SIMULATED_NOTE]
    if footer:
        parts += ["", *(f"- {_markdown_cell(line)}" for line in footer)]
    return "\n".join(parts) + "\n"


def _markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(headers) + " |", "| " + " | ".join("-" * len(header) for header in headers) + " |"]
    lines += ["| " + " | ".join(_markdown_cell(cell) for cell in row) + " |" for row in rows]
    return lines


def _markdown_cell(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def as_csv(summary: Summary) -> str:
    """Return every point as one CSV row, ready and failed alike; the source is always a column."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    more = ["kv-cache-tokens", "max-concurrency", "image", "vllm-version"]
    writer.writerow(["point", *(name.lower() for name in COLUMNS), *more, *CSV_ENDS])
    for row in summary.rows:
        cells = ["" if cell == "-" else _inert(cell) for cell in _cells(row)]
        facts = [row.kv_cache_tokens, row.max_concurrency, _inert(printable(row.image)), _version(row)]
        writer.writerow([row.point, *cells, *facts, "ready", "", "", "", row.source])
    for item in summary.failed:
        known = [item.tensor_parallel_size, item.gpu_memory_utilization, item.max_model_len]
        cells = [
            _inert(printable(item.model)),
            "",
            "",
            "",
            "",
            "",
            *("" if cell is None else str(cell) for cell in known),
        ]
        facts = [None, None, _inert(printable(item.image)), _version(item)]
        words = [_inert(printable(item.cause)), _inert(printable(item.remedy or ""))]
        writer.writerow([item.point, *cells, *facts, "failed", item.failure, *words, item.source])
    return buffer.getvalue()


def _version(row: Row | FailedRow) -> str:
    return _inert(printable(row.vllm_version or ""))


def _inert(cell: str) -> str:
    # A spreadsheet runs a cell that starts like a formula; a negative number is no formula.
    is_number = re.fullmatch(r"-?[\d.]+", cell)
    return "'" + cell if cell[:1] in set("=+-@\t") and not is_number else cell
