"""What the local adapter leaves on this machine: the pods of its state folder, and processes that belong to them."""

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

EVERY_SECONDS = 0.02
LAST_SECONDS = 10.0


def pods(state: Path) -> list[str]:
    """Return the names of the pods in a state folder."""
    folder = state / "pods"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def processes(state: Path) -> list[str]:
    """Return every process of this machine that works in the state folder or names it in its command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            folder = (entry / "cwd").readlink()
        except OSError:
            continue  # it ended while we looked
        if words and (str(state) in words or folder.is_relative_to(state)):
            found.append(f"{entry.name}: {words[:200]}")
    return found


def lasting_processes(state: Path) -> list[str]:
    """Return the processes that do not end soon: a killed one is listed until it has the CPU once more."""
    end = time.monotonic() + LAST_SECONDS
    while (found := processes(state)) and time.monotonic() < end:
        time.sleep(EVERY_SECONDS)
    return found


@dataclass
class LocalSampler:
    """Reads the state folder many times a second, and keeps every pod that ever ran: each runs longer than that."""

    state: Path
    uids: dict[str, set[str]] = field(default_factory=dict)  # by point
    by_name: dict[str, set[str]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="local-sampler", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self._stop.set()
        self._thread.join(10)

    def _follow(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            for name in pods(self.state):
                folder = self.state / "pods" / name
                try:
                    # Without a status no process ever ran: a kprof that was killed had only written the folder.
                    if "pid" not in json.loads((folder / "status.json").read_text(encoding="utf-8")):
                        continue
                    spec = json.loads((folder / "pod.json").read_text(encoding="utf-8"))
                except (OSError, ValueError):
                    continue  # half written, or gone again
                self.uids.setdefault(spec["labels"]["kprof.io/point"], set()).add(spec["uid"])
                self.by_name.setdefault(name, set()).add(spec["uid"])
