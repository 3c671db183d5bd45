"""A container's log from its first line to its last, once each, over a connection that may break at any byte."""

import asyncio
import random
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import NamedTuple

import aiohttp

from orchestrator.cluster.kubernetes.transport import TRANSPORT_ERRORS, ApiError, Transport
from orchestrator.cluster.port import CONTAINER, LogChunk

MAX_LINE_BYTES = 64 * 1024
MAX_WAIT_SECONDS = 30.0
# A server that loads a model may be silent for long, and opening a thousand silent streams anew is work for the API
# server; a connection that an outage has killed is dropped as soon as the outage is over.
LOG_IDLE_SECONDS = 300.0
LAST_READS = 5  # of a log whose container has ended, where one after the other is cut or a node rotates it
LOOK_SECONDS = 5.0  # how often a silent stream looks whether its container has finished

_Key = tuple[str, int]  # a line's stamp, and a sum of its text


class _Position:
    """Where the log was read to: the last second, and its lines, which a resume sends again.

    The API server cuts `sinceTime` to whole seconds, so a resumed stream starts with lines already seen.
    """

    def __init__(self) -> None:
        self.last: str | None = None
        self._last_line: _Key | None = None
        self._seen: Counter[_Key] = Counter()
        self._expected: Counter[_Key] = Counter()
        self._overlapped = True
        self._unfinished_size = 0

    def resume(self) -> None:
        """Prepare for a new stream that repeats the lines of the last second."""
        self._expected = Counter(self._seen)
        self._overlapped = self._last_line is None

    @property
    def begun(self) -> bool:
        """Say whether any line was read."""
        return self._last_line is not None

    @property
    def repeated(self) -> bool:
        """Say whether the stream sent all lines of the last second again: one that was cut short did not."""
        return not +self._expected

    @property
    def past(self) -> bool:
        """Say whether the stream is behind the last line that was read."""
        return self._overlapped

    def grew(self, unfinished_size: int) -> bool:
        """Say whether a line without its end has grown, however often streams repeat it."""
        if not self.past or unfinished_size <= self._unfinished_size:
            return False
        self._unfinished_size = unfinished_size
        return True

    def take(self, stamp: str, text: bytes) -> LogChunk | None:
        """Return the line when it is new, None when it was given before.

        Marks a gap when the last line was not repeated before it: a rotation took it, or a node's clock was set back.
        """
        key = (stamp, zlib.crc32(text))
        if self._expected[key] > 0:
            self._expected[key] -= 1
            self._overlapped |= key == self._last_line and not self._expected[key]
            return None
        gap, self._overlapped = not self._overlapped, True
        second = _utc_second(stamp)
        if second is not None and (self.last is None or second > self.last):
            self.last = second
            self._seen.clear()
        self._seen[key] += 1
        self._last_line = key
        self._unfinished_size = 0
        return LogChunk(text + b"\n", gap=gap)


async def follow_log(
    transport: Transport, path: str, finished: Callable[[], bool], idle_seconds: float = LOG_IDLE_SECONDS
) -> AsyncIterator[LogChunk]:
    """Yield the log until the container has finished and all was read; a clean end of a stream proves nothing.

    A stream that is silent for `idle_seconds` is opened anew: its node may be gone without a word.
    While it cannot be read, a chunk without data says so in `unreadable`, and an empty one that it can be again, or
    that a line grew which has no end yet, as a progress bar's.
    Where nobody can be sure that the end was read, the last chunk is a gap.
    """
    position, failures, unreadable = _Position(), 0, False
    doubts, tail = LAST_READS, b""
    while True:
        last_pass = finished()
        position.resume()
        params = {"container": CONTAINER, "timestamps": "true", "follow": "false" if last_pass else "true"}
        if position.last is not None:
            params["sinceTime"] = position.last
        complete, more, words, rest = False, False, "", b""
        # Logs that fell silent together are not opened anew together.
        idle = min(idle_seconds, LOG_IDLE_SECONDS) * random.uniform(0.7, 1)  # noqa: S311
        try:
            async with transport.follow(path, params, idle_seconds=idle) as reply:
                if unreadable:
                    unreadable = False
                    yield LogChunk(b"")
                async for line in _lines(_chunks(reply.content, _never if last_pass else finished)):
                    rest = b"" if line.ended or not position.past else line.text
                    if not line.ended:
                        if position.grew(line.size):
                            failures = 0
                            yield LogChunk(b"")
                        continue
                    failures = 0
                    if (chunk := position.take(line.stamp, line.text)) is not None:
                        more, tail = True, b""
                        yield chunk
            complete = True
        except ApiError as error:
            if error.code in {400, 404} and finished():
                if tail or position.begun or error.code == 404:  # with 400, a container that never started has no log
                    yield LogChunk(tail, gap=True)
                return
            words = error.message or error.reason  # 401 and 403, too: a kubelet's own refusal is passed through
        except TRANSPORT_ERRORS as error:
            words = str(error) or type(error).__name__  # a cut, or a silent pod: go on from the last line
        if complete and last_pass:
            doubts -= 1
            # A clean end proves nothing here either: the last read is the one that repeats the end and adds nothing.
            sure = position.repeated and not more and rest == tail
            tail = max(tail, rest, key=len)  # such a line only grows: a shorter one was cut
            if sure or not doubts:
                if tail or not sure:
                    yield LogChunk(tail, gap=not sure)
                return
        failures += 1
        if words and failures > 1:
            unreadable = True
            yield LogChunk(b"", unreadable=words)
        longest = min(MAX_WAIT_SECONDS, 0.05 * 2 ** min(failures, 10))
        await transport.health.pause(random.uniform(longest / 2, longest))  # noqa: S311 - spreads retries, guards nothing


def _never() -> bool:
    return False


async def _chunks(content: aiohttp.StreamReader, finished: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Yield what comes until the stream ends, or is silent after the container has finished: it may be dead."""
    while True:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                chunk = await content.readany()
        except TimeoutError as error:
            if finished():
                return
            if isinstance(error, aiohttp.ClientError):
                raise  # this one came from the connection
            continue
        if not chunk:
            return
        yield chunk


def _utc_second(stamp: str) -> str | None:
    """Return the second of a time stamp in UTC: nodes stamp lines in their own zone. None for what is no stamp."""
    zone = stamp[-6:] if stamp[-6:-5] in {"+", "-"} else "+00:00"
    try:
        at = datetime.fromisoformat(stamp[:19] + zone)
    except ValueError:
        return None
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Line(NamedTuple):
    stamp: str
    text: bytes
    size: int  # in bytes so far, of which at most 64 KiB are kept
    ended: bool


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[_Line]:
    """Cut a stream with time stamps into lines; one that has no end yet comes again and again as it grows."""
    rest, size = bytearray(), 0
    async for chunk in chunks:
        *lines, tail = chunk.split(b"\n")
        for line in lines:
            rest += line[: max(0, MAX_LINE_BYTES - len(rest))]
            yield _line(rest, size + len(line), ended=True)
            rest.clear()
            size = 0
        rest += tail[: max(0, MAX_LINE_BYTES - len(rest))]
        size += len(tail)
        if not lines:
            yield _line(rest, size, ended=False)
    if rest:
        yield _line(rest, size, ended=False)


def _line(kept: bytearray, size: int, *, ended: bool) -> _Line:
    stamp, _, text = bytes(kept).partition(b" ")
    return _Line(stamp.decode("ascii", "replace"), text, size, ended)
