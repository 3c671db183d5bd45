"""Helpers to run a command, to time a step and to wait for a condition."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.bed.errors import BedError


def run(argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return its standard output; raise BedError with the end of its errors if it fails."""
    done = subprocess.run([str(word) for word in argv], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-3000:]
        raise BedError(f"{' '.join(str(word) for word in argv[:4])} ... exited {done.returncode}:\n{said}")
    return done.stdout


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Print one line with the seconds that the block took, also when it failed."""
    started = time.monotonic()
    outcome = "FAILED"
    try:
        yield
        outcome = "ok"
    finally:
        print(f"{what:<44} {outcome} {time.monotonic() - started:7.2f} s", flush=True)


def wait_for(what: str, check: Callable[[], bool], *, seconds: float, every: float = 0.1) -> None:
    """Call check until it returns true; raise BedError once the given seconds have passed."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise BedError(f"{what}: not so after {seconds:.0f} s")
        time.sleep(every)


def tail(path: Path, lines: int = 25) -> str:
    """Return the last lines of a log, or a note that there is none."""
    if not path.is_file():
        return f"(no {path.name})"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
