"""How fast the parser reads, beside grep of the same patterns, one pass for each pattern, and wc -l.

    python benchmarks/parse_logs.py [--logs tests/data/logs] [--megabytes 100] [--runs 3] [--served]

A log of the wanted size is made by repeating the real logs of a folder; with --served, nine tenths of it are what a
server prints while it serves. Each way runs as a process of its own, the
ways in turn, and the best of all runs counts: what disturbs a run only makes it slower.
"""

import argparse
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PLACE = re.compile(r"\{([^{}]*)\}")
_SPECIAL = re.compile(r"([.^$*+?()\[\]{}|\\])")
# What peers do: a dozen patterns, each searched for over the whole text.
DOZEN = (
    r"Model loading took ([\d.]+) GiB",
    r"Loading model weights took ([\d.]+) GB",
    r"torch peak memory increase: ([\d.]+)GiB",
    r"non-torch forward increase memory: ([\d.]+)GiB",
    r"weights memory: ([\d.]+)GiB",
    r"Available KV cache memory: (-?[\d.]+) GiB",
    r"KV cache size: ([\d,]+) tokens",
    r"Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x",
    r"Graph capturing finished in (\d+) secs, took (-?[\d.]+) GiB",
    r"init engine \(.*\) took ([\d.]+) s",
    r"(\w+Error): (.*)",
    r"version (\d+\.\d+\.\d+)",
)


SERVED = (
    b"(APIServer pid=1) INFO 11-21 03:08:42 [loggers.py:236] Engine 000: Avg prompt throughput: 812.4 tokens/s, Avg "
    b"generation throughput: 1204.9 tokens/s, Running: 37 reqs, Waiting: 0 reqs, GPU KV cache usage: 41.2%, Prefix "
    b"cache hit rate: 12.6%\n"
    b'(APIServer pid=1) INFO:     10.0.3.17:51522 - "POST /v1/chat/completions HTTP/1.1" 200 OK\n'
    b'(APIServer pid=1) INFO:     10.0.3.18:40112 - "GET /health HTTP/1.1" 200 OK\n'
    b"(EngineCore_DP0 pid=83) DEBUG 11-21 03:08:42 [v1/engine/core.py:717] EngineCore loop active.\n"
    b"(EngineCore_DP0 pid=83) DEBUG 11-21 03:08:43 [v1/engine/core.py:711] EngineCore waiting for work.\n"
)


def make_log(folder: Path, megabytes: int, path: Path, *, served: bool) -> int:
    """Write a log of about the wanted size; returns its bytes."""
    logs = [raw for file in sorted(folder.rglob("*.log")) if not (raw := file.read_bytes()).startswith(b"\xff\xfe")]
    one = b"".join(raw if raw.endswith(b"\n") else raw + b"\n" for raw in logs)
    if served:
        one += SERVED * (9 * len(one) // len(SERVED))
    wanted = megabytes * 1_000_000
    with path.open("wb") as log:
        for _ in range(wanted // len(one) + 1):
            log.write(one)
        log.truncate(wanted)
    return wanted


def patterns() -> list[str]:
    """Return every template of the parser as an extended regular expression."""
    from orchestrator.vllm_log.causes import CAUSES
    from orchestrator.vllm_log.marks import NEEDLES, Mark
    from orchestrator.vllm_log.wordings import WORDINGS

    texts = [one.template.text for one in (*WORDINGS, *CAUSES)]
    texts += [needle for mark, needles in NEEDLES.items() if mark is not Mark.FRAME for needle in needles]
    return list(dict.fromkeys(_extended(text) for text in texts))


def _extended(text: str) -> str:
    parts = []
    for index, part in enumerate(_PLACE.split(text)):
        if index % 2 == 0:
            parts.append(_SPECIAL.sub(r"\\\1", part))
        elif part == "*":
            parts.append(".*")
        elif part == "w":
            parts.append("[^ ]+")
        else:
            parts.append(r"-?[0-9,]*\.?[0-9]+" + (" ?(bytes|[KMGT]i?B|B)" if part.endswith(":unit") else ""))
    return "".join(parts)


def run_way(way: str, path: str) -> None:
    """Read the log in one way, in this process, and print its seconds and its peak memory in MiB."""
    started = time.perf_counter()
    if way == "kprof":
        from orchestrator.vllm_log import LogParser

        parser = LogParser()
        with Path(path).open("rb") as log:
            while chunk := log.read(1 << 20):
                parser.feed(chunk)
        parser.close()
    else:
        text = Path(path).read_bytes().decode("utf-8", "replace")
        for pattern in DOZEN if way == "dozen" else patterns():
            for match in re.finditer(pattern, text):
                match.groups()
    seconds = time.perf_counter() - started
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def timed(command: list[str], locale: str) -> float:
    """Run a command to its end; returns its seconds."""
    started = time.perf_counter()
    # Not to /dev/null: grep would stop at the first match.
    subprocess.run(command, check=False, stdout=subprocess.PIPE, env={**os.environ, "LC_ALL": locale})
    return time.perf_counter() - started


def main() -> None:
    """Run every way and print a table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--logs", type=Path, default=ROOT / "tests/data/logs")
    options.add_argument("--megabytes", type=int, default=100)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--every-pattern", action="store_true", help="also one pass for each pattern of the parser")
    options.add_argument("--served", action="store_true", help="nine tenths are the lines of a server at work")
    options.add_argument("--way", nargs=2, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.way:
        run_way(*given.way)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "big.log")
        size = make_log(given.logs, given.megabytes, path, served=given.served)
        file = Path(folder, "patterns")
        file.write_text("\n".join(patterns()) + "\n")
        grep = [shutil.which("grep") or "grep", "-cE", "-f", str(file), str(path)]
        own = ["kprof", "dozen", *(["every"] if given.every_pattern else [])]
        best: dict[str, float] = {}
        memory: dict[str, float] = {}
        for _ in range(given.runs):
            for way in own:
                done = subprocess.run(
                    [sys.executable, __file__, "--way", way, str(path)], check=True, capture_output=True, text=True
                )
                seconds, mib = (float(part) for part in done.stdout.split())
                best[way] = min(best.get(way, seconds), seconds)
                memory[way] = mib
            for name, locale in (("grep, C locale", "C"), ("grep, UTF-8 locale", "C.UTF-8")):
                best[name] = min(best.get(name, 1e9), timed(grep, locale))
            best["wc -l"] = min(best.get("wc -l", 1e9), timed(["wc", "-l", str(path)], "C"))
    names = {
        "kprof": "kprof: facts, ranks, diagnosis",
        "dozen": f"one pass for each of {len(DOZEN)} patterns",
        "every": f"one pass for each of {len(patterns())} patterns",
    }
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {size / 1e6:.0f} MB")
    print(f"{'way':<40} {'MB/s':>8} {'seconds':>8} {'peak MiB':>9}")
    for way, seconds in sorted(best.items(), key=lambda item: item[1]):
        peak = f"{memory[way]:9.0f}" if way in memory else f"{'':>9}"
        print(f"{names.get(way, way):<40} {size / 1e6 / seconds:8.1f} {seconds:8.2f} {peak}")


if __name__ == "__main__":
    main()
