"""Which lines are worth reading: most of a DEBUG log is not, and is passed over unread."""

import re
from collections.abc import Iterator

from orchestrator.vllm_log.failures import STAGE_FRAMES

# Few, long and rare on purpose: each is one pass over the bytes, and a long word lets the pass skip most of them.
# A cause that always stands beside an exception's name is found by "rror"; progress bars are not looked for.
NEEDLES: tuple[bytes, ...] = tuple(
    word.encode()
    for word in (
        # figures
        "GiB", " GB", "KV cache size: ", "Maximum concurrency for", " blocks: ", "num_gpu_blocks is",
        "Available memory: ",
        "raph capturing finished", "init engine (profile", "torch.compile t", "torch.compile and init",
        "Warmup finished in",
        # life
        " version ", "LLM engine (v", "detected platform", "startup complete", "Uvicorn running on",
        "Starting to load model", "Capturing cudagraphs for", "Capturing the model for", "CUDA graph memory profiling",
        "kprof simulator", "_parallel_size", "block_size",
        # failures
        "rror", "Traceback (most recent", '", line ', "KeyboardInterrupt", "SIGTERM", "Received signal",
        "out of memory", "died unexpectedly", "failed to start", "nitialization failed", "hit an exception",
        "startup failed", "NVRM: Xid", "GPU is lost", "fallen off the bus", "oom-kill", "OOMKilled", "ErrImagePull",
        "ImagePullBackOff", "Failed to pull image", "gated repo", "Access to model", "Repository Not Found",
        "is not a local folder", "couldn't connect to", "Watchdog caught", "annot allocate memory",
        "No available memory", "max seq len", "must be divisible by", "is greater than the derived",
        "number of available GPU", "is only supported on", "are not supported", "on startup is less than",
    )
)  # fmt: skip
_FRAME = b'", line '
_TELLING = re.compile(b", in (?:" + "|".join(sorted(n for _, names in STAGE_FRAMES for n in names)).encode() + rb")\b")


def interesting_lines(block: bytes, count: int) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of each line of `block` that holds a needle, in order.

    `block` is made of whole lines; `count` is the number of lines before it.
    """
    starts: set[int] = set()
    find, rfind = block.find, block.rfind
    for needle in NEEDLES:
        at = find(needle)
        while at >= 0:
            end = find(b"\n", at)
            # Of a traceback's many frames only those count whose function tells the stage.
            if needle != _FRAME or _TELLING.search(block, at, end if end >= 0 else len(block)):
                starts.add(rfind(b"\n", 0, at) + 1)
            if end < 0:
                break
            at = find(needle, end)
    before = 0
    for start in sorted(starts):
        count += block.count(b"\n", before, start)
        before = start
        end = find(b"\n", start)
        yield count + 1, block[start:] if end < 0 else block[start:end]
