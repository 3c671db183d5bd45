"""Feed damaged logs to the parser: nothing may raise, hang, or depend on how the stream was cut.

python -m tests.fuzz.fuzz_vllm_log --inputs 1000000
"""

import argparse
import itertools
import json
import multiprocessing
import random
import resource
import sys
import time

from orchestrator.vllm_log import LogParser, parse_log, redact_bytes, unread_lines
from tests.fuzz.mutate import corpus, mutated

SLOW_SECONDS = 10.0  # far more than a log takes, on a loaded machine too
COMPARED = 10  # one input in so many is read again in chunks, and its unread lines are listed


def check(raw: bytes, dice: random.Random) -> None:
    """Parse one input whole; now and then in chunks too, which must give the same. Raises AssertionError."""
    started = time.perf_counter()
    whole = [start_up.to_json("x") for start_up in parse_log(raw)]
    json.dumps(whole, allow_nan=False)
    if dice.randrange(COMPARED) == 0 and raw[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        cuts = sorted(dice.randrange(len(raw) + 1) for _ in range(dice.randrange(12)))
        parser = LogParser()
        for start, end in itertools.pairwise([0, *cuts, len(raw)]):
            parser.feed(raw[start:end])
        assert [start_up.to_json("x") for start_up in parser.close()] == whole
        unread_lines(raw)
        redact_bytes(raw)
    seconds = time.perf_counter() - started
    assert seconds < SLOW_SECONDS, f"{seconds:.1f} s for {len(raw)} bytes"


def run(seed: int, inputs: int) -> int:
    """Check many inputs of one seed; returns the peak memory in KiB. A failure names the seed and the input."""
    logs = corpus()
    for index in range(inputs):
        dice = random.Random(f"{seed}:{index}")
        raw = mutated(logs, dice)
        try:
            check(raw, dice)
        except Exception:
            sys.stderr.write(f"input {seed}:{index}, {len(raw)} bytes: {raw[:2000]!r}\n")
            raise
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def long_line(gibibytes: float) -> int:
    """Feed one line of the given size; returns the peak memory in KiB."""
    parser = LogParser()
    chunk = (b"Model loading took 1.5 GiB memory " * 31_000)[: 1 << 20]
    for _ in range(int(gibibytes * 1024)):
        parser.feed(chunk)
    parser.close()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Run the wanted number of inputs on all cores, then the long line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--inputs", type=int, default=1_000_000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    given = options.parse_args()
    started = time.perf_counter()
    share = -(-given.inputs // given.jobs)
    with multiprocessing.Pool(given.jobs, maxtasksperchild=1) as pool:
        peaks = pool.starmap(run, [(given.seed * 1000 + job, share) for job in range(given.jobs)], chunksize=1)
        line_peak = pool.apply(long_line, (1.0,))
    seconds = time.perf_counter() - started
    print(f"{share * given.jobs} damaged logs and a line of 1 GiB in {seconds:.0f} s: nothing raised or hung")
    print(f"peak memory {max(peaks) / 1024:.0f} MiB a process, {line_peak / 1024:.0f} MiB for the long line")


if __name__ == "__main__":
    main()
