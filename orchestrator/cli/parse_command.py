"""`kprof parse`: the shared parser on files or stdin."""

import contextlib
import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from orchestrator.cli.console import stdout_console
from orchestrator.errors import UsageError
from orchestrator.report.tables import printable
from orchestrator.vllm.metrics import KvMetrics, read_metrics
from orchestrator.vllm_log import LogParser, StartUp, against_metrics, unread_lines

_GZIP = b"\x1f\x8b"
CHUNK_BYTES = 1 << 20


def parse_files(names: Sequence[str], metrics: Path | None, *, as_json: bool) -> int:
    """Parse each log and print its start-ups in order.

    Returns 0, or 1 when a start-up failed or was interrupted, when a log has none, or a check against /metrics failed.

    Raises UsageError for a file that cannot be read.
    """
    failed = False
    console = stdout_console()
    page = None if metrics is None else _read_metrics(metrics)
    for name in names:
        parser, lines = LogParser(), 0
        for chunk in _chunks(name):
            parser.feed(chunk)
            lines += chunk.count(b"\n")
        found = [start_up for start_up in parser.close() if start_up.tells_something]
        if not found:
            sys.stderr.write(f"error: {printable(name)}: no vLLM start-up in {lines} lines\n")
            sys.stderr.write("  name the log of the container that runs vLLM\n")
            failed = True
        if page is not None and found:
            checks = against_metrics(
                found[-1],
                num_gpu_blocks=page.num_gpu_blocks,
                block_size=page.block_size,
                kv_cache_size_tokens=page.kv_cache_size_tokens,
            )
            found[-1].checks += checks
            failed = failed or not all(check.ok for check in checks)
        for start_up in found:
            failed = failed or start_up.failure is not None
            if as_json:
                sys.stdout.write(json.dumps(start_up.to_json(_shown_name(name))) + "\n")
            else:
                _print(console, name, start_up)
    return 1 if failed else 0


def show_unread(names: Sequence[str], *, as_json: bool) -> int:
    """Print the lines with a memory size that no table of the parser knows; returns 1 when there are any."""
    console = stdout_console()
    some = False
    for name in names:
        found = unread_lines(b"".join(_chunks(name)))
        some = some or bool(found)
        for line in found:
            if as_json:
                document = {
                    "log": _shown_name(name),
                    "line_number": line.line_number,
                    "count": line.count,
                    "line": line.line,
                }
                sys.stdout.write(json.dumps(document) + "\n")
            else:
                text = f"{name}:{line.line_number}: {line.count} x {line.line}"
                console.print(Text(printable(text)), soft_wrap=True)
    return 1 if some else 0


def _shown_name(name: str) -> str:
    return "-" if name == "-" else Path(name).name


def _chunks(name: str) -> Iterator[bytes]:
    """Yield a log's bytes, unpacked; raises UsageError for a file that cannot be read."""
    try:
        with contextlib.ExitStack() as stack:
            file = sys.stdin.buffer if name == "-" else stack.enter_context(Path(name).open("rb"))
            head = file.read(CHUNK_BYTES)
            unpack = zlib.decompressobj(wbits=31) if head.startswith(_GZIP) else None
            while head:
                if unpack is None:
                    yield head
                else:
                    yield from _unpacked(unpack, head)
                head = file.read(CHUNK_BYTES)
            if unpack is not None and not unpack.eof:
                raise UsageError(f"{name}: a damaged gzip file: it ends too early", remedy="fetch it again")
    except zlib.error as error:
        raise UsageError(f"{name}: a damaged gzip file: {error}", remedy="unpack it and name the text") from error
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}", remedy="name a log file, or - for stdin") from error


def _unpacked(unpack: "zlib._Decompress", packed: bytes) -> Iterator[bytes]:
    """Yield what the packed bytes hold, never more than a chunk at once, however well they are packed."""
    while packed and not unpack.eof:
        if part := unpack.decompress(packed, CHUNK_BYTES):
            yield part
        packed = unpack.unconsumed_tail


def _read_metrics(path: Path) -> KvMetrics:
    try:
        text = path.read_text("utf-8", "replace")
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror or error}", remedy="save it with: curl URL/metrics > FILE"
        ) from error
    page = read_metrics(text)
    if page is None:
        raise UsageError(f"{path}: no vLLM metric in it", remedy="save it with: curl URL/metrics > FILE")
    return page


def _print(console: Console, name: str, start_up: StartUp) -> None:
    def say(text: str) -> None:
        console.print(Text(printable(text)), soft_wrap=True)

    mark = " SIMULATED" if start_up.simulated else ""
    say(f"{name} start {start_up.number}: vllm {start_up.vllm_version or 'unknown'}, {start_up.state}{mark}")
    for fact, value in start_up.to_json(name)["facts"].items():
        proof = start_up.evidence.get(fact)
        line = f"line {proof.line_number}" if proof else f"= {start_up.derived.get(fact, '')}"
        shown = f"{value:>12}" if isinstance(value, int) else f"{value:>12g}"
        meaning = f"  ({start_up.meaning[fact]})" if fact in start_up.meaning else ""
        say(f"  {fact:<26} {shown}  {line}{meaning}")
    if start_up.settings:
        say("  settings: " + ", ".join(f"{key} {value}" for key, value in sorted(start_up.settings.items())))
    for moment, figures in start_up.phases.items():
        say(f"  {moment}: " + ", ".join(f"{key} {value:g}" for key, value in figures.items()))
    for check in start_up.checks:
        say(f"  {check.subject}: {'holds' if check.ok else 'BROKEN'} ({check.shown})")
    if start_up.failure is not None:
        failure = start_up.failure
        rank = f" of {failure.rank}" if failure.rank else ""
        say(
            f"  FAILED {failure.kind} in {failure.stage}{rank}, line {failure.evidence.line_number}: "
            f"{failure.evidence.line}"
        )
        if failure.remedy:
            say(f"  remedy: {failure.remedy}")
