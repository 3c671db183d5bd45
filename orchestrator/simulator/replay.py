"""A recorded log printed again at its own pace, and a server whose metrics agree with it."""

import asyncio
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from packaging.version import Version

from orchestrator.memory.kv_cache import KvCacheLayout
from orchestrator.simulator.arguments import ServeArguments
from orchestrator.simulator.engine import Engine
from orchestrator.simulator.environment import Environment
from orchestrator.simulator.failures import ConfigError
from orchestrator.simulator.listener import bind
from orchestrator.simulator.log import Log
from orchestrator.simulator.metrics import CacheFacts
from orchestrator.simulator.server import Served, serve_http
from orchestrator.vllm.version import parse_version

READY = "Application startup complete."
LONGEST_PAUSE_SECONDS = 3600.0
_STAMP = re.compile(r"\b(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)\b")
_BLOCKS = re.compile(r"(?:num_gpu_blocks is:|# (?:GPU|cuda) blocks:) (\d+)")
_TOKENS = re.compile(r"KV cache size: ([\d,]+) tokens")
_CONCURRENCY = re.compile(r"Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x")
_BLOCK_SIZE = re.compile(r"'?\bblock_size'?[:=] ?(\d+)")
_VERSION = re.compile(r"(?:API server version|LLM engine \(v|█  version) ?([0-9][^\s)]*)")
_MODEL = re.compile(r"with config: model='([^']+)'")
_UTILIZATION = re.compile(r"'?\bgpu_memory_utilization'?[:=] ?([\d.]+)")
_ENDED = re.compile(r"EngineDeadError|Application shutdown complete|Traceback \(most recent call last\)")


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a log says about its KV cache; `num_blocks` includes the null block."""

    version_text: str | None
    model: str | None
    block_size: int
    num_blocks: int
    tokens: int
    max_model_len: int
    max_concurrency: float
    utilization: float


def read_log(path: Path) -> list[str]:
    """Return the lines of a log; UTF-16 is recognised by its mark, stray bytes are replaced."""
    raw = path.read_bytes()
    encoding = "utf-16" if raw[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
    return raw.decode(encoding, errors="replace").split("\n")


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return None if match is None else match.group(1)


def recorded_facts(lines: list[str]) -> Recorded:
    """Read the few facts that the metrics of a replayed server must agree with."""
    text = "\n".join(lines)
    tokens_text, blocks_text = _first(_TOKENS, text), _first(_BLOCKS, text)
    tokens = int(tokens_text.replace(",", "")) if tokens_text else 0
    size_text = _first(_BLOCK_SIZE, text)
    block_size = int(size_text) if size_text else 16
    blocks = int(blocks_text) if blocks_text else max(1, tokens // block_size)
    if size_text is None and tokens and blocks_text and tokens % blocks == 0:
        block_size = tokens // blocks
    concurrency = _CONCURRENCY.search(text)
    length = int(concurrency.group(1).replace(",", "")) if concurrency else blocks * block_size
    return Recorded(
        version_text=_first(_VERSION, text),
        model=_first(_MODEL, text),
        block_size=block_size,
        num_blocks=blocks,
        tokens=tokens or blocks * block_size,
        max_model_len=length,
        max_concurrency=float(concurrency.group(2)) if concurrency else 1.0,
        utilization=float(_first(_UTILIZATION, text) or 0.9),
    )


def pause_seconds(before: str | None, line: str) -> tuple[str | None, float]:
    """Return the line's time stamp and the seconds since the one before, 0 where there is none."""
    match = _STAMP.search(line)
    if match is None:
        return before, 0.0
    stamp = match.group(0)
    if before is None:
        return stamp, 0.0
    # The log has no year; a leap year lets every date be read.
    times = [datetime.strptime(f"2000-{text}", "%Y-%m-%d %H:%M:%S") for text in (before, stamp)]
    return stamp, min(max(0.0, (times[1] - times[0]).total_seconds()), LONGEST_PAUSE_SECONDS)


async def _print(lines: list[str], log: Log, speed: float) -> None:
    before: str | None = None
    for line in lines:
        before, seconds = pause_seconds(before, line)
        if seconds:
            await asyncio.sleep(seconds / speed)
        log.plain(line.rstrip("\r"))


def _served(recorded: Recorded, arguments: ServeArguments, environment: Environment) -> Served:
    text = recorded.version_text or environment.version_text
    version: Version = parse_version(text) or environment.version
    layout = KvCacheLayout(1, 1, 1, 0, recorded.block_size, None)
    engine = Engine(
        layout,
        recorded.num_blocks,
        max_num_seqs=256,
        max_num_batched_tokens=8192,
        prefix_caching=True,
        speed=environment.speed,
    )
    facts = CacheFacts(
        block_size=recorded.block_size,
        cache_dtype="auto",
        enable_prefix_caching=True,
        gpu_memory_utilization=recorded.utilization,
        num_gpu_blocks=recorded.num_blocks,
        num_gpu_blocks_override=None,
        kv_cache_memory_bytes=None,
        tokens=recorded.tokens,
        max_concurrency=recorded.max_concurrency,
        sliding_window=None,
    )
    return Served(
        version=version,
        version_text=text,
        root=recorded.model or arguments.model,
        names=list(dict.fromkeys([*arguments.served_names, recorded.model or arguments.model])),
        max_model_len=recorded.max_model_len,
        api_keys=arguments.api_keys,
        engines=[engine],
        facts=facts,
        access=lambda _line: None,
    )


async def replay(path: Path, arguments: ServeArguments, environment: Environment, log: Log) -> int:
    """Print a recorded log and serve from its ready line on; a log that never gets ready exits with 1."""
    try:
        lines = read_log(path)
    except OSError as error:
        raise ConfigError(f"OSError: {error}") from error
    if lines and not lines[-1]:
        lines.pop()
    ready = next((index for index, line in enumerate(lines) if READY in line), None)
    with bind(arguments) as listener:
        if arguments.port == 0:
            # The recorded address is not the one at which the replay will listen.
            log.plain(f"kprof simulator: the replay will listen on http://0.0.0.0:{listener.getsockname()[1]}")
        if ready is None:
            await _print(lines, log, environment.speed)
            return 1
        await _print(lines[:ready], log, environment.speed)
        served = _served(recorded_facts(lines), arguments, environment)
        rest = lines[ready + 1 :]
        async with asyncio.TaskGroup() as group:
            group.create_task(serve_http(served, listener, lambda: log.plain(lines[ready].rstrip("\r"))))
            await _print(rest, log, environment.speed)
            if any(_ENDED.search(line) for line in rest):
                served.died.set()
        return 1
