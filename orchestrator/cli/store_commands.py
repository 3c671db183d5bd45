"""`kprof summary`, `kprof show` and `kprof logs`: readers of the store."""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.cli.console import stdout_console
from orchestrator.errors import NothingSelectedError
from orchestrator.report.summary import SIMULATED_NOTE, summarise
from orchestrator.report.tables import as_csv, markdown, printable, terminal
from orchestrator.store import RunRecord, Store, StoredResult, open_store

# Colours and other switches of a terminal, which a log on a terminal is better without.
_COLOURS = re.compile(r"\x1b\[[0-9;]{0,40}m")
MOST_CHARACTERS = 2000  # of a line of evidence


def _open_existing(url: str) -> Store:
    path = url.removeprefix("sqlite:///")
    if "://" not in path and not Path(path).exists():
        raise NothingSelectedError(
            f"there is no store {path}", remedy="run `kprof sweep` first, or name it with --store"
        )
    return open_store(url)


def _run(store: Store, name: str | None) -> RunRecord:
    run = store.latest_run() if name is None else store.run(name)
    if run is None:
        what = "no run" if name is None else f"no run {name!r}"
        have = ", ".join(f"{item.number} ({item.matrix})" for item in store.runs()[-10:])
        remedy = f"runs: {have}" if have else "run `kprof sweep` first"
        raise NothingSelectedError(f"the store {store.name} holds {what}", remedy=remedy)
    return run


def _result(store: Store, run: RunRecord, point: str) -> StoredResult:
    results = store.results(run.id)
    for result in results:
        if point in {result.point.id, result.point.hash}:
            return result
    have = ", ".join(result.point.id for result in results) or "none"
    raise NothingSelectedError(f"run {run.number} has no result of {point!r}", remedy=f"results: {have}")


def print_summary(url: str, name: str | None, output: str) -> None:
    """Print the summary of a run in one of the formats."""
    store = _open_existing(url)
    run = _run(store, name)
    results = store.results(run.id)
    have = {result.point.hash for result in results}
    missing = [point.id for point in store.points(run.id) if point.hash not in have]
    summary = summarise(run, results, missing)
    if output == "table":
        terminal(summary, stdout_console())
    elif output == "json":
        sys.stdout.write(json.dumps(summary.to_json()) + "\n")
    else:
        sys.stdout.write(markdown(summary) if output == "markdown" else as_csv(summary))


def print_log(url: str, name: str | None, point: str) -> None:
    """Print the raw log of a point."""
    store = _open_existing(url)
    run = _run(store, name)
    result = _result(store, run, point)
    log = store.log(run.id, result.point.hash)
    if log is None:
        raise NothingSelectedError(f"no log of {point!r} is stored", remedy="its pod never started")
    if not sys.stdout.isatty():
        sys.stdout.buffer.write(log)
        return
    text = _COLOURS.sub("", log.decode("utf-8", "replace"))
    sys.stdout.write("\n".join(printable(line.expandtabs()) for line in text.split("\n")))


def print_result(url: str, name: str | None, point: str, *, as_json: bool) -> None:
    """Print one result as JSON, or as a page of text."""
    store = _open_existing(url)
    run = _run(store, name)
    result = _result(store, run, point)
    if as_json:
        document = {"run": run.id, "point": result.point.id, "recorded_at": result.recorded_at, **result.document}
        sys.stdout.write(json.dumps(document) + "\n")
        return
    console = stdout_console()

    def say(text: str = "") -> None:
        console.print(Text(printable(text)), soft_wrap=True)

    version = result.document["start_up"]["vllm_version"] or result.point.vllm_version or "unknown"
    say(f"{result.point.id}  (run {run.number}, attempt {result.attempt}, {result.source})")
    say(f"  vllm {version}  {result.point.model}")
    say("  " + " ".join(f"--{key}={value}" for key, value in sorted(result.point.arguments.items())))
    if result.source != "measured":
        say("  " + SIMULATED_NOTE)
    _say_failure(say, result.document["failure"])
    _facts_table(console, result.document["start_up"])
    for check in result.document["start_up"]["checks"]:
        verdict = "holds" if check["ok"] else "BROKEN"
        unit, left = next((key[9:], value) for key, value in check.items() if key.startswith("residual_"))
        subject = " ".join(part for part in (check["name"], check.get("of"), check["rank"]) if part)
        say(f"check {subject}: {verdict}, residual {round(left, 2) + 0.0:+.2f} {'GiB' if unit == 'gib' else unit}")
    _say_metrics(say, result.document)
    for flag in result.document["flags"]:
        say(f"note: {flag}")
    seconds = ", ".join(f"{key} {value:g} s" for key, value in result.document["seconds"].items())
    adopted = result.document.get("adopted")
    if adopted:
        seconds = "; ".join(filter(None, (seconds, "the pod was taken over from a kprof that was killed")))
    say(f"time: {seconds}")


def _say_failure(say: Any, failure: Mapping[str, Any] | None) -> None:
    if failure is None:
        return
    rank = f", rank {failure['rank']}" if failure["rank"] else ""
    say(f"  FAILED {failure['kind']} in stage {failure['stage']}{rank}")
    where = f"line {failure['line_number']}: " if failure["line_number"] else ""
    say(f"  evidence: {where}{failure['line']}")
    if failure["remedy"]:
        say(f"  remedy: {failure['remedy']}")


def _facts_table(console: Console, start_up: Mapping[str, Any]) -> None:
    facts = start_up["facts"]
    if not facts:
        return
    ranks = start_up["ranks"] if len(start_up["ranks"]) > 1 else []
    table = Table()
    for header in ("Fact", "Value", *(rank["rank"] for rank in ranks), "Line", "Evidence"):
        side: Literal["left", "right"] = "left" if header in {"Fact", "Evidence"} else "right"
        table.add_column(Text(printable(header)), justify=side, overflow="fold")
    for name, value in facts.items():
        proof = start_up["evidence"].get(name, {"line_number": "", "line": "derived"})
        per_rank = [f"{rank[name]:g}" if name in rank else "" for rank in ranks]
        cells = [name, f"{value:g}", *per_rank, str(proof["line_number"]), str(proof["line"])[:MOST_CHARACTERS]]
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(table)


def _say_metrics(say: Any, document: Mapping[str, Any]) -> None:
    idle, live = document["metrics"], document["live"]
    if idle is not None:
        agrees = {True: "agrees with the log", False: "DIFFERS FROM THE LOG", None: "not in the log"}
        blocks = f"{idle['num_gpu_blocks']} blocks of {idle['block_size']}"
        say(f"metrics idle: usage {idle['usage_ratio']}, {blocks} ({agrees[idle['agrees_with_log']]})")
    if live is None:
        return
    say(f"metrics live: {live['prompt_tokens']} prompt tokens")
    for sample in live["samples"]:
        low, high = sample["expected_min_blocks"], sample["expected_max_blocks"]
        bounds = "unknown" if low is None else str(low) if low == high else f"{low} to {high}"
        used = sample["used_blocks"]
        tokens = f"{live['prompt_tokens']} + {sample['generated_tokens']} tokens"
        total = (live["num_gpu_blocks"] or 1) - 1
        say(f"  {tokens}: usage {sample['usage_ratio']:.6f} = {used} of {total} blocks, expected {bounds}")
    verdict = {True: "agrees", False: "DISAGREES", None: "not judged"}[live["agrees"]]
    say(f"  KV accounting: {verdict}" + (f" ({live['note']})" if live["note"] else ""))
