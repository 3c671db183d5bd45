"""The talk on stderr while a sweep runs: a live table on a terminal, one line for each change elsewhere."""

import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.cli.console import counted
from orchestrator.matrix.point import Point
from orchestrator.report.tables import printable
from orchestrator.store import RunRecord
from orchestrator.sweep.run import Progress
from orchestrator.vllm_log import redact

STAGES = {
    "creating": "creating pod",
    "queued": "queued",
    "starting": "starting",
    "load": "loading weights",
    "profile": "profiling memory",
    "kv_cache": "building KV cache",
    "graph_capture": "capturing graphs",
    "warmup": "warming up",
    "runtime": "ready",
    "probing": "probing live",
    "deleting": "deleting pod",
}
FRAME_LINES = 6  # of the live table: its title, head and borders, and the line below it


class View(Protocol):
    """Shows the progress of a sweep."""

    def start(self, run: RunRecord, remaining: Collection[str]) -> None:
        """Begin: points whose hash is not in `remaining` have a result already."""
        ...

    def update(self, progress: Progress) -> None:
        """Show that a point entered a stage, or ended."""
        ...


def outcome(progress: Progress) -> tuple[str, str]:
    """Return the words and the colour for a point that ended."""
    result, expected = progress.result, progress.point.expect
    if result is None:
        return redact(progress.stage), ""
    if result.failure is None:
        facts = result.start_up.facts
        kv = f", KV {facts['kv_cache_gib']:.2f} GiB" if "kv_cache_gib" in facts else ""
        return f"ready{kv}", "green" if expected is None else "red"
    words = f"failed: {result.failure.kind}"
    return (f"{words}, as expected", "yellow") if result.failure.kind == expected else (words, "red")


def _stage(progress: Progress) -> str:
    return STAGES.get(progress.stage) or redact(progress.stage)


class LineView:
    """One line for each change."""

    def start(self, run: RunRecord, remaining: Collection[str]) -> None:
        """Say which run this is."""
        mark = " SIMULATED" if run.source != "measured" else ""
        todo = counted(len(remaining), "point")
        self._say(f"run {run.number} ({run.id}) of {run.matrix} on {run.cluster}{mark}: {todo} to do")

    def update(self, progress: Progress) -> None:
        """Print the change."""
        words = outcome(progress)[0] if progress.stage == "done" else _stage(progress)
        self._say(f"{progress.point.id}: {words}")

    def _say(self, text: str) -> None:
        # Talk must not stop a sweep: whoever read stderr may have gone. (A console of rich would end the process then.)
        with suppress(OSError):
            print(f"{time.strftime('%H:%M:%S')} {printable(text)}", file=sys.stderr, flush=True)  # noqa: T201


@dataclass(slots=True)
class _Row:
    """What is known of one point; times are of the monotonic clock, in seconds."""

    point: Point
    words: str = "waiting"
    style: str = "dim"
    begun: float | None = None
    ended: float | None = None  # 0 for a point that had a result before

    @property
    def rank(self) -> tuple[int, float]:
        """Order the rows by how much they matter: those at work, then the last that ended, then those that wait."""
        if self.ended is not None:
            return 1, -self.ended
        return (2, 0.0) if self.begun is None else (0, 0.0)

    def cells(self, now: float) -> tuple[Text, str, Text, str]:
        """Return the row's texts."""
        seconds = "" if self.begun is None else f"{(self.ended or now) - self.begun:.0f}"
        state = Text(printable(self.words), style=self.style)
        return Text(self.point.id), str(self.point.accelerator.count), state, seconds


class LiveView:
    """A table of the points, redrawn in place; where the terminal is too low, of those that matter most."""

    def __init__(self, console: Console, points: Sequence[Point], *, simulated: bool) -> None:
        self._console = console
        self._rows = {point.id: _Row(point) for point in points}
        self._title = "SIMULATED sweep" if simulated else "sweep"
        self.live = Live(console=console, refresh_per_second=8, get_renderable=self._render, transient=True)

    def start(self, run: RunRecord, remaining: Collection[str]) -> None:
        """Mark the points that are done already."""
        mark = "SIMULATED " if run.source != "measured" else ""
        self._title = f"{mark}run {run.number} ({run.id}) of {run.matrix} on {printable(run.cluster)}"
        for row in self._rows.values():
            if row.point.hash not in remaining:
                row.words, row.ended = "done before", 0.0

    def update(self, progress: Progress) -> None:
        """Note the change; the table is redrawn by its own clock."""
        row, now = self._rows[progress.point.id], time.monotonic()
        row.begun = now if row.begun is None else row.begun
        if progress.stage == "done":
            (row.words, row.style), row.ended = outcome(progress), now
        else:
            row.words, row.style = _stage(progress), "cyan"

    def _render(self) -> Group:
        table = Table(title=Text(self._title, overflow="ellipsis", no_wrap=True), title_justify="left", expand=False)
        for header in ("Point", "GPUs", "State", "Seconds"):
            table.add_column(header, justify="right" if header in {"GPUs", "Seconds"} else "left", no_wrap=True)
        rows, now = list(self._rows.values()), time.monotonic()
        room = max(1, self._console.size.height - FRAME_LINES)
        shown = {row.point.id for row in sorted(rows, key=lambda row: row.rank)[:room]}
        for row in rows:
            if row.point.id in shown:
                table.add_row(*row.cells(now))
        done = sum(row.ended is not None for row in rows)
        return Group(table, Text(f"{done} of {counted(len(rows), 'point')}{_hidden(rows, shown)}"))


def _hidden(rows: Sequence[_Row], shown: Collection[str]) -> str:
    """Say how many rows there was no room for."""
    left = [row.rank[0] for row in rows if row.point.id not in shown]
    counts = ((left.count(rank), words) for rank, words in enumerate(("at work", "ended", "waiting")))
    said = ", ".join(f"{count} {words}" for count, words in counts if count)
    return f"; no room here for {said}" if said else ""


@contextmanager
def open_view(points: Sequence[Point], *, simulated: bool) -> Iterator[View]:
    """Open the view that fits stderr."""
    if sys.stderr.isatty():
        view = LiveView(Console(stderr=True, highlight=False), points, simulated=simulated)
        view.live.start()
        try:
            yield view
        finally:
            with suppress(OSError):  # the terminal may have gone
                view.live.stop()
    else:
        yield LineView()
