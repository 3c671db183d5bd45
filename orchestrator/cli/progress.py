"""The talk on stderr while a sweep runs: a live table on a terminal, one line for each change elsewhere."""

import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

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

    def __init__(self, console: Console) -> None:
        self._console = console

    def start(self, run: RunRecord, remaining: Collection[str]) -> None:
        """Say which run this is."""
        mark = " SIMULATED" if run.source != "measured" else ""
        self._say(f"run {run.number} ({run.id}) of {run.matrix} on {run.cluster}{mark}: {len(remaining)} points to do")

    def update(self, progress: Progress) -> None:
        """Print the change."""
        words = outcome(progress)[0] if progress.stage == "done" else _stage(progress)
        self._say(f"{progress.point.id}: {words}")

    def _say(self, text: str) -> None:
        # Talk must not stop a sweep: whoever read stderr may have gone.
        with suppress(OSError):
            self._console.print(Text(f"{time.strftime('%H:%M:%S')} {printable(text)}"), soft_wrap=True)


class LiveView:
    """A table of every point, redrawn in place."""

    def __init__(self, console: Console, points: Sequence[Point], *, simulated: bool) -> None:
        self._points = points
        self._stage = {point.id: ("waiting", "dim") for point in points}
        self._since: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._title = "SIMULATED sweep" if simulated else "sweep"
        self.live = Live(console=console, refresh_per_second=8, get_renderable=self._render, transient=True)

    def start(self, run: RunRecord, remaining: Collection[str]) -> None:
        """Mark the points that are done already."""
        mark = "SIMULATED " if run.source != "measured" else ""
        self._title = f"{mark}run {run.number} ({run.id}) of {run.matrix} on {printable(run.cluster)}"
        for point in self._points:
            if point.hash not in remaining:
                self._stage[point.id] = ("done before", "dim")

    def update(self, progress: Progress) -> None:
        """Note the change; the table is redrawn by its own clock."""
        name, now = progress.point.id, time.monotonic()
        self._since.setdefault(name, now)
        if progress.stage == "done":
            self._stage[name] = outcome(progress)
            self._took[name] = now - self._since[name]
        else:
            self._stage[name] = (_stage(progress), "cyan")

    def _render(self) -> Group:
        table = Table(title=Text(self._title), title_justify="left", expand=False)
        for header in ("Point", "GPUs", "State", "Seconds"):
            table.add_column(header, justify="right" if header in {"GPUs", "Seconds"} else "left", no_wrap=True)
        now = time.monotonic()
        for point in self._points:
            words, style = self._stage[point.id]
            since = self._since.get(point.id)
            took = self._took.get(point.id, 0.0 if since is None else now - since)
            seconds = "" if since is None else f"{took:.0f}"
            table.add_row(Text(point.id), str(point.accelerator.count), Text(printable(words), style=style), seconds)
        done = sum(words.startswith(("ready", "failed", "done")) for words, _ in self._stage.values())
        return Group(table, Text(f"{done} of {len(self._points)} points"))


@contextmanager
def open_view(points: Sequence[Point], *, simulated: bool) -> Iterator[View]:
    """Open the view that fits stderr."""
    console = Console(stderr=True, highlight=False)
    if sys.stderr.isatty():
        view = LiveView(console, points, simulated=simulated)
        with view.live:
            yield view
    else:
        yield LineView(console)
