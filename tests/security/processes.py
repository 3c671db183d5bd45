"""What others on this machine can see of kprof and of what it started: argument lists, and files outside the store."""

import contextlib
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

LOOK_SECONDS = 0.05


class Onlooker:
    """Notes the argument list of every process with a mark in its environment, and some files, while it looks.

    Raw logs of pods that run are no secret's hiding place: `log` files are passed over.
    """

    def __init__(self, mark: str, folder: Path, pattern: str = "*") -> None:
        self.arguments: set[bytes] = set()
        self.files: dict[str, bytes] = {}
        self._mark = mark.encode()
        self._files = (folder, pattern)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="onlooker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    if self._mark in (process / "environ").read_bytes():
                        self.arguments.add((process / "cmdline").read_bytes())
            self.files |= files_of(*self._files)


def files_of(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    """Return the content of every file under a folder, raw logs excepted, with its path before it."""
    found = {}
    for path in folder.rglob(pattern):
        if path.name != "log":
            with contextlib.suppress(OSError):
                found[str(path)] = str(path).encode() + b"\n" + path.read_bytes()
    return found
