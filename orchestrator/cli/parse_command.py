"""`kprof parse`: the shared parser on files or stdin."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from orchestrator.cli.console import stdout_console
from orchestrator.errors import UsageError
from orchestrator.report.tables import printable
from orchestrator.vllm_log import StartUp, parse_log


def parse_files(names: Sequence[str], *, as_json: bool) -> int:
    """Parse each log and print its start-ups in order; returns 0, or 1 when one of them failed."""
    failed = False
    console = stdout_console()
    for name in names:
        raw = _read(name)
        found = [start_up for start_up in parse_log(raw) if start_up.tells_something]
        if not found:
            lines = raw.count(b"\n")
            sys.stderr.write(f"error: {name}: no vLLM start-up in {lines} lines\n")
            sys.stderr.write("  name the log of the container that runs vLLM\n")
            failed = True
        for start_up in found:
            failed = failed or start_up.failure is not None
            if as_json:
                sys.stdout.write(json.dumps(start_up.to_json("-" if name == "-" else Path(name).name)) + "\n")
            else:
                _print(console, name, start_up)
    return 1 if failed else 0


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}", remedy="name a log file, or - for stdin") from error


def _print(console: Console, name: str, start_up: StartUp) -> None:
    def say(text: str) -> None:
        console.print(Text(printable(text)), soft_wrap=True)

    state = {True: "ready", False: "not ready", None: "unknown"}[start_up.engine_ready]
    mark = " SIMULATED" if start_up.simulated else ""
    say(f"{name} start {start_up.number}: vllm {start_up.vllm_version or 'unknown'}, {state}{mark}")
    for fact, value in start_up.to_json(name)["facts"].items():
        proof = start_up.evidence.get(fact)
        line = f"line {proof.line_number}" if proof else start_up.derived.get(fact, "")
        shown = f"{value:>12}" if isinstance(value, int) else f"{value:>12g}"
        say(f"  {fact:<26} {shown}  {line}")
    for check in start_up.checks:
        residual = round(check.residual_gib, 2) + 0.0
        say(f"  {check.name} {check.rank}: {'holds' if check.ok else 'BROKEN'} ({residual:+.2f} GiB)")
    if start_up.failure is not None:
        failure = start_up.failure
        say(f"  FAILED {failure.kind} in {failure.stage}, line {failure.evidence.line_number}: {failure.evidence.line}")
        if failure.remedy:
            say(f"  remedy: {failure.remedy}")
