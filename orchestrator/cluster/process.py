"""Which process this is, so that another one can tell whether it still lives."""

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path


def process_start(pid: int) -> str | None:
    """Return a process's start time in clock ticks since boot; None when there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


@dataclass(frozen=True, slots=True)
class Driver:
    """A kprof as leases name it: host, process and a token that tells two of one process apart.

    `place` names the boot and the pid namespace, without which a pid of the same host says nothing.
    """

    host: str
    place: str
    pid: int
    started: str
    token: str

    @classmethod
    def this(cls) -> "Driver":
        """Return this process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _place(), pid, process_start(pid) or "0", secrets.token_hex(4))

    @classmethod
    def parse(cls, identity: str) -> "Driver | None":
        """Read an identity as `str()` writes it; None for any other text."""
        parts = identity.split("/")
        if len(parts) != 5 or not parts[2].isdigit():
            return None
        return cls(parts[0], parts[1], int(parts[2]), parts[3], parts[4])

    def __str__(self) -> str:
        return f"{self.host}/{self.place}/{self.pid}/{self.started}/{self.token}"

    @property
    def known_dead(self) -> bool:
        """Say whether the process ran here and does not any more; False also where nobody here can tell."""
        here = self.host == socket.gethostname() and self.place == _place() != "unknown"
        return here and process_start(self.pid) != self.started


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return "unknown"
    return f"{boot[:8]}-{''.join(filter(str.isdigit, namespace))}"
