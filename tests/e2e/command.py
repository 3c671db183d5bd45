"""kprof as a user runs it: a process with its own folder, store and state, and what it printed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
H100 = str(CHECKOUT / "matrices" / "h100.yaml")
SPEED = ("--simulate", "--simulate-speed", "60")
RUN_SECONDS = 100.0


@dataclass(frozen=True)
class Outcome:
    """How one command ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    def json(self) -> Any:
        """Return stdout as JSON: there is nothing else in it."""
        return json.loads(self.stdout)

    @property
    def error(self) -> str:
        """Return the one error message; anything else on stderr that looks like a crash is a failure."""
        assert "Traceback" not in self.stderr, self.stderr
        assert self.stderr.count("error: ") == 1, self.stderr
        return self.stderr[self.stderr.index("error: ") :]


class Running:
    """A command that runs; stdout and stderr go to files, so that it never waits for a reader."""

    def __init__(self, argv: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        self._files = folder / f"stdout-{time.monotonic_ns()}", folder / f"stderr-{time.monotonic_ns()}"
        self._begin = time.monotonic()
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            # A group of its own, as a shell gives it: Ctrl-C reaches everything that belongs to it.
            self.process = subprocess.Popen(
                argv, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, process_group=0
            )

    def ends_within(self, seconds: float) -> bool:
        """Wait for the end for at most this long and say whether it came."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal: SIGINT to the whole group as a terminal does, others to kprof alone."""
        if number is signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def outcome(self, seconds: float = RUN_SECONDS) -> Outcome:
        """Wait for the end; a command that does not end in time is killed and fails the test."""
        ended = self.ends_within(seconds)
        if not ended:
            self.process.kill()
            self.process.wait()
        out, err = (path.read_bytes().decode("utf-8", "replace") for path in self._files)
        assert ended, f"no end within {seconds:g} s; stderr so far:\n{err[-3000:]}"
        return Outcome(self.process.returncode, out, err, time.monotonic() - self._begin)


@dataclass
class Kprof:
    """The command, at home in a folder: store `kprof.db`, local state `state`."""

    folder: Path
    kubeconfig: Path | None = None
    started: list[Running] = field(default_factory=list)

    @property
    def store(self) -> Path:
        """Return the store's file."""
        return self.folder / "kprof.db"

    @property
    def state(self) -> Path:
        """Return the folder in which local pods are kept."""
        return self.folder / "state"

    def environment(self, kubeconfig: Path | None = None) -> dict[str, str]:
        """Return the environment of a command: nothing of the user's own reaches it."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KPROF_")}
        environment.pop("KUBECONFIG", None)
        chosen = kubeconfig or self.kubeconfig
        # Without a cluster the file must not exist: nothing may fall back to the user's own.
        environment["KUBECONFIG"] = str(chosen or self.folder / "no-kubeconfig")
        return environment | {
            "KPROF_STATE": str(self.state),
            "KPROF_STORE": f"sqlite:///{self.store}",
            "COLUMNS": "200",
        }

    def start(self, *arguments: str, kubeconfig: Path | None = None) -> Running:
        """Start `kprof ARGUMENTS`; the store is this folder's unless the arguments say another."""
        environment = self.environment(kubeconfig)
        running = Running([sys.executable, "-m", "orchestrator.cli", *arguments], self.folder, environment)
        self.started.append(running)
        return running

    def run(self, *arguments: str, kubeconfig: Path | None = None, seconds: float = RUN_SECONDS) -> Outcome:
        """Run `kprof ARGUMENTS` to its end."""
        return self.start(*arguments, kubeconfig=kubeconfig).outcome(seconds)

    def close(self) -> None:
        """End what a failed test left running."""
        for running in self.started:
            if running.process.poll() is None:
                running.process.kill()
                running.process.wait()
