"""Lines that look like memory figures and that no table knows: what a new vLLM release prints differently."""

import re
from dataclasses import dataclass

from orchestrator.vllm_log.causes import CAUSES
from orchestrator.vllm_log.framing import Encoding, clean, frame
from orchestrator.vllm_log.marks import FRAME, QUOTED_SOURCE
from orchestrator.vllm_log.phases import read_peak, read_phase
from orchestrator.vllm_log.redact import redact
from orchestrator.vllm_log.template import compile_template
from orchestrator.vllm_log.wordings import WORDINGS

MOST_SHAPES = 1000
MAX_CHARACTERS = 2000
_SIZE = re.compile(rb"\d ?(?:[KMGT]i?B|bytes)\b(?!/s)")
_DIGITS = re.compile(r"-?\d[\d.,]*")
# Sizes that are no part of a start-up's budget, or that another line says better.
_KNOWN = tuple(
    compile_template(text).pattern
    for text in (
        "GiB memory is still in use",
        "sleep freed {} GiB memory in total",
        "MemAllocator: discarded {} GiB",
        "Estimated {w} CUDA graph memory: {} MiB",
        "CUDA graphs can take additional",
        "GiB of cached device memory under memory pressure",
        "torch reserved memory: {} GiB",
        "Encoder graph capturing finished",
        "Auto-fit max_model_len",
        "Available RAM: {} GiB",
        "Auto-prefetch is disabled",
        "Static buffer pool: {} GB",
        "swap space",
        "Environment variable VLLM_CPU_KVCACHE_SPACE",
        "VLLM_CPU_KVCACHE_SPACE not set",
        "Using {} GiB for KV cache",
        "KV cache memory in use is",
        "for HPUGraphs",
        "of host memory",
        "of device memory",
        "raw-frame semaphore budget",
        "Startup plan not applied: current free memory",
        "Free memory grew by",
        "HiSparse HMA: ",
        "Weight cache {w} daemon rank",
        "Sleep mode released HCCL",
        "Post graph compilation, the available memory",
        "Memory cgroup out of memory",
        "Process {} has {} GiB memory in use",
        "total_hbm_limit_gb=",
        "hbm=[",
        " bytes for {w} with address",
        "Flashinfer max size: ",
        "Prefetching checkpoint files",
        "collected artifacts: ",
        "Memory cleanup attempt",
        "% full",
    )
)


@dataclass(slots=True)
class UnreadLine:
    """The first line of one shape (figures aside), and how many lines of the log have it."""

    line_number: int
    line: str
    count: int = 1


def unread_lines(raw: bytes) -> list[UnreadLine]:
    """Return, in order, the lines with a memory size that no wording and no known cause explains, redacted."""
    shapes: dict[str, UnreadLine] = {}
    encoding = Encoding()
    text = encoding.decode(raw) + encoding.close()
    for number, line in enumerate(text.split(b"\n"), 1):
        if not _SIZE.search(line):
            continue
        for record in frame(number, clean(line)):
            if _is_read(record.words, record.message):
                continue
            shape = _DIGITS.sub("#", record.message)[:200]
            known = shapes.get(shape)
            if known is not None:
                known.count += 1
            elif len(shapes) < MOST_SHAPES:
                shapes[shape] = UnreadLine(number, redact(record.text)[:MAX_CHARACTERS])
    return list(shapes.values())


def _is_read(words: str, message: str) -> bool:
    if QUOTED_SOURCE.search(message) or FRAME.search(message):
        return True
    if read_phase(words) is not None or read_peak(words) is not None:
        return True
    templates = [*(one.template for one in WORDINGS), *(one.template for one in CAUSES)]
    if any(template.needle in words and template.pattern.search(words) for template in templates):
        return True
    return any(pattern.search(words) for pattern in _KNOWN)
