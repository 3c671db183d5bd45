"""The live table of a sweep, on terminals of several heights."""

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from orchestrator.cli.progress import LiveView
from orchestrator.matrix.point import Point
from orchestrator.store import RunRecord
from orchestrator.sweep.run import Progress
from tests.fakes.matrix import group, points
from tests.fakes.results import result

RUN = RunRecord("0a1b2c3d", 1, "m", "digest", "a-cluster-with-quite-a-long-name-in-its-context", "measured", "", None)
WIDTH = 70


def _points(count: int) -> list[Point]:
    return points(*(group(f"point-{number:02}", arguments={"max-model-len": 1000 + number}) for number in range(count)))


def _view(of: Sequence[Point], height: int, *, remaining: int | None = None) -> tuple[LiveView, Console]:
    console = Console(file=io.StringIO(), force_terminal=True, width=WIDTH, height=height, color_system=None)
    view = LiveView(console, of, simulated=False)
    view.start(RUN, {point.hash for point in of[: len(of) if remaining is None else remaining]})
    return view, console


def _lines(view: LiveView, console: Console) -> list[str]:
    with console.capture() as drawn:
        console.print(view.live.get_renderable())
    return drawn.get().splitlines()


def _names(lines: list[str]) -> list[str]:
    return [line.split()[1] for line in lines if "point-" in line]


@pytest.mark.parametrize("height", [8, 12, 24, 50])
@pytest.mark.parametrize("count", [1, 17, 18, 19, 99])
def test_the_table_is_never_higher_than_the_terminal(height: int, count: int) -> None:
    """Nothing is cut off, and the last line counts every point."""
    view, console = _view(_points(count), height)
    lines = _lines(view, console)
    assert len(lines) <= height
    total = f"0 of {count} points" if count > 1 else "0 of 1 point"
    hidden = count - len(_names(lines))
    assert lines[-1] == (f"{total}; no room here for {hidden} waiting" if hidden else total)


def test_all_points_stand_in_the_order_of_the_matrix_where_there_is_room() -> None:
    """No row moves while the sweep goes on."""
    of = _points(5)
    view, console = _view(of, 24)
    view.update(Progress(of[3], "load"))
    view.update(Progress(of[4], "done", result(of[4])))
    assert _names(_lines(view, console)) == [point.id for point in of]


def test_points_at_work_are_seen_first_then_those_that_ended_last() -> None:
    """A point that waits is shown only where there is room left."""
    of = _points(40)
    view, console = _view(of, 10, remaining=30)
    view.update(Progress(of[1], "done", result(of[1])))
    view.update(Progress(of[25], "done", result(of[25], kind="oom.load")))
    for at_work in (of[7], of[20], of[28]):
        view.update(Progress(at_work, "load"))
    lines = _lines(view, console)
    assert _names(lines) == [of[7].id, of[20].id, of[25].id, of[28].id]
    assert lines[-1] == "12 of 40 points; no room here for 11 ended, 25 waiting"


def test_more_points_at_work_than_lines() -> None:
    """Those that are not shown are counted as at work."""
    of = _points(9)
    view, console = _view(of, 10)
    for point in of:
        view.update(Progress(point, "load"))
    assert _lines(view, console)[-1] == "0 of 9 points; no room here for 5 at work"
