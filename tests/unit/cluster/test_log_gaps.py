"""Lines of a log that are lost are told of, wherever they were lost; a log that was read whole has no gaps."""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.cluster.kubernetes.health import Health
from orchestrator.cluster.kubernetes.logs import LAST_READS, follow_log
from orchestrator.cluster.kubernetes.transport import ApiError

pytestmark = pytest.mark.looptime
TEN = [f"2026-01-01T00:00:{second:02d}.0Z line-{second}\n".encode() for second in range(10)]
NOT_FOUND = ApiError(404, "NotFound", 'pods "kp" not found')
NEVER_STARTED = ApiError(400, "BadRequest", 'container "vllm" in pod "kp" is waiting to start: ContainerCreating')


@dataclass
class _Content:
    parts: list[bytes]

    async def readany(self) -> bytes:
        return self.parts.pop(0) if self.parts else b""


@dataclass
class _Reply:
    content: _Content


@dataclass
class _Kubelet:
    """Gives out one stream after the other, the last one again and again, each from the second that is asked for."""

    streams: Sequence[Sequence[bytes] | ApiError]
    opened: int = 0
    health: Health = field(default_factory=Health)

    @asynccontextmanager
    async def follow(self, _path: str, params: Mapping[str, str], *, idle_seconds: float) -> AsyncIterator[_Reply]:
        assert idle_seconds > 0
        stream = self.streams[min(self.opened, len(self.streams) - 1)]
        self.opened += 1
        if isinstance(stream, ApiError):
            raise stream
        since = params.get("sinceTime", "")[:19]
        yield _Reply(_Content([line for line in stream if not re.match(rb"\d", line) or line[:19].decode() >= since]))


@dataclass
class _Read:
    """What was read: the text, and the places in it before which lines are missing."""

    text: str = ""
    gaps: list[int] = field(default_factory=list)


async def _read(*streams: Sequence[bytes] | ApiError, ended: Callable[[int], bool] = bool) -> _Read:
    """Read a log whose container has ended once so many streams were opened."""
    kubelet: Any = _Kubelet(streams)
    got = _Read()
    async for chunk in follow_log(kubelet, "/log", lambda: ended(kubelet.opened)):
        if chunk.gap:
            got.gaps.append(got.text.count("\n"))
        got.text += chunk.data.decode()
    return got


def _text(lines: Sequence[bytes]) -> str:
    return b"".join(line.partition(b" ")[2] for line in lines).decode()


async def test_a_log_that_is_read_whole_has_no_gaps() -> None:
    """Though every stream ended in another place."""
    got = await _read(TEN[:3], TEN[:3], TEN[:7], TEN, ended=lambda opened: opened > 2)
    assert got == _Read(_text(TEN))
    assert await _read([]) == _Read()


async def test_lines_after_a_clock_was_set_back_are_missed() -> None:
    """A kubelet filters by the time of each line: a stream that goes on from the last second lacks those before it."""
    back = [b"2026-01-01T00:00:02.5Z set-back\n", b"2026-01-01T00:00:04.0Z lost\n"]
    later = [b"2026-01-01T00:00:20.0Z later\n"]
    got = await _read([*TEN, back[0]], [*TEN, *back, *later], ended=lambda opened: opened > 1)
    assert got.text == _text([*TEN, back[0], *later])
    assert got.gaps == [len(TEN) + 1]


async def test_an_end_that_is_cut_again_and_again_is_missed() -> None:
    """Each read of the log of a container that ended got further than the one before, to the last that is made."""
    got = await _read(*([TEN[: number + 1] for number in range(LAST_READS + 1)]), TEN, ended=lambda _opened: True)
    assert got == _Read(_text(TEN[:LAST_READS]), [LAST_READS])


@pytest.mark.parametrize("then", [[], NOT_FOUND], ids=["rotated", "collected"])
async def test_an_end_that_nobody_can_read_any_more_is_missed(then: Sequence[bytes] | ApiError) -> None:
    """The stream was cut, and the rest is gone: its node rotated the log, or the pod was collected."""
    assert await _read(TEN, then) == _Read(_text(TEN), [len(TEN)])


async def test_a_container_that_never_started_has_no_gaps() -> None:
    """The API server refuses a log that there never was."""
    assert await _read(NEVER_STARTED, ended=lambda _opened: True) == _Read()


async def test_equal_lines_are_told_apart_by_their_number() -> None:
    """Two lines of one time and one text are two: a stream that repeats one of them lacks the other."""
    twice = [TEN[0], TEN[0]]
    assert await _read(twice, [*twice, TEN[1]]) == _Read(_text([*twice, TEN[1]]))
    assert await _read(twice, [TEN[0], TEN[1]]) == _Read(_text([*twice, TEN[1]]), [2])


async def test_a_last_line_without_a_line_feed_comes_once() -> None:
    """A read that was cut within a line gives no half of it; a line that never ends is given at the end."""
    whole, half = TEN[1], TEN[1][:-4]
    assert await _read([TEN[0], half], [TEN[0], whole], ended=lambda _opened: True) == _Read(_text([TEN[0], whole]))
    assert await _read([TEN[0], half], ended=lambda _opened: True) == _Read(_text([TEN[0], half]))
    assert await _read([TEN[0], half], TEN[:1], ended=lambda _opened: True) == _Read(_text([TEN[0], half]), [1])
    assert await _read([TEN[0], half], NOT_FOUND, ended=lambda _opened: True) == _Read(_text([TEN[0], half]), [1])
