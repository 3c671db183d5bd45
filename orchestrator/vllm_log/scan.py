"""Which lines are worth reading: most of a DEBUG log is not, and is passed over unread."""

from collections.abc import Iterator

# Long and rare on purpose: searching a long word skips most bytes. Every wording and every cause holds one of them;
# tests/unit/vllm_log checks that.
NEEDLES: tuple[bytes, ...] = tuple(
    word.encode()
    for word in (
        # figures
        "GiB", " GB", "KV cache size: ", "Maximum concurrency for", " blocks: ", "num_gpu_blocks is",
        "Available memory: ", "raph capturing finished", "init engine (profile", "torch.compile ", "Warmup finished",
        # life
        "version ", "LLM engine (v", "detected platform", "startup complete", "Uvicorn running on", "Capturing ",
        "Starting to load model", "Loading ", "CUDA graph memory profiling", "kprof simulator", "_parallel_size",
        # failures
        "rror", "Traceback (most", '", line ', "KeyboardInterrupt", "SIGTERM", "Received signal", "terminated by sig",
        "out of memory", "died unexpectedly", "failed to start", "initialization failed", "startup failed",
        "hit an exception", "leaving none for the KV", "Xid", "GPU is lost", "fallen off the bus", "oom-kill",
        "OOMKilled", "ErrImagePull", "ImagePullBackOff", "Failed to pull image", "Cannot access gated",
        "Access to model",
        "gated repo", "Repository Not Found", "is not a local folder", "Invalid repository ID", "connect to",
        "Failed to resolve", "outgoing traffic", "ncclSystem", "ncclUnhandled", "ncclInternal",
        "Watchdog caught", "Insufficient space", "annot allocate memory", "encountered a", "not support",
        "no kernel image", "is only supported on", "No valid attention", "backend ", "does not recognize",
        "number of available", "ensure that world", "out of bounds", "device ordinal", "number of visible devices",
        "Not enough resources", "No available memory", "Cannot auto-fit", "Mamba cache blocks", "on startup is less",
        "allocation is less", "max seq len", "must be divisible", "not divisible by", "is greater than the derived",
        "quantization method", "Name or service not known",
    )
)  # fmt: skip


def interesting_lines(block: bytes, count: int) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of each line of `block` that holds a needle, in order.

    `block` is made of whole lines; `count` is the number of lines before it.
    """
    starts: set[int] = set()
    find, rfind = block.find, block.rfind
    for needle in NEEDLES:
        at = find(needle)
        while at >= 0:
            starts.add(rfind(b"\n", 0, at) + 1)
            end = find(b"\n", at)
            if end < 0:
                break
            at = find(needle, end)
    before = 0
    for start in sorted(starts):
        count += block.count(b"\n", before, start)
        before = start
        end = find(b"\n", start)
        yield count + 1, block[start:] if end < 0 else block[start:end]
