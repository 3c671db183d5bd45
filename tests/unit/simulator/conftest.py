"""Starts the simulator as a process, the way a local run does."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

_PORT = re.compile(r"(?:server(?: 0)? on|will listen on) http://[^:]+:(\d+)")


@dataclass
class Simulated:
    """One process of the simulator and what it printed so far."""

    process: subprocess.Popen[bytes]
    lines: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    ended: bool = False

    def read(self) -> None:
        """Collect output until the process closes it."""
        assert self.process.stdout is not None
        # Only LF ends a line: vLLM's records contain CR, and tests look at them.
        for line in io.TextIOWrapper(self.process.stdout, encoding="utf-8", newline="\n"):
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def wait_for(self, text: str, seconds: float = 20.0) -> None:
        """Wait until a line contains `text`; a process that ends before is a failure with its log."""
        with self.changed:
            self.changed.wait_for(lambda: self.ended or any(text in line for line in self.lines), seconds)
            assert any(text in line for line in self.lines), "\n".join(self.lines[-30:])

    def wait(self, seconds: float = 20.0) -> int:
        """Wait for the end and return the exit code."""
        code = self.process.wait(seconds)
        with self.changed:
            self.changed.wait_for(lambda: self.ended, seconds)
        return code

    def ready(self) -> "Simulated":
        """Wait until the server accepts requests."""
        self.wait_for("Application startup complete.")
        return self

    @property
    def text(self) -> str:
        """Return the whole log."""
        return "\n".join(self.lines)

    @property
    def url(self) -> str:
        """Return the address at which the server listens."""
        match = _PORT.search(self.text)
        assert match is not None, self.text
        return f"http://127.0.0.1:{match.group(1)}"

    def terminate(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(5)


Simulate = Callable[..., Simulated]


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    """Return a function that starts a simulator: `simulate("MODEL", "--flag", VERSION="0.11.0")`."""
    started: list[Simulated] = []

    def start(*argv: str, port: str = "0", debug: bool = True, **settings: str) -> Simulated:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KPROF_SIMULATE_")}
        for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "NO_COLOR"):
            environment.pop(name, None)
        environment |= {"VLLM_LOGGING_LEVEL": "DEBUG" if debug else "INFO", "KPROF_SIMULATE_SPEED": "500"}
        environment["PYTHONUNBUFFERED"] = "1"
        if settings.pop("colors", "") != "yes":
            environment["NO_COLOR"] = "1"
        environment |= {f"KPROF_SIMULATE_{name}": value for name, value in settings.items()}
        command = [sys.executable, "-m", "orchestrator.simulator", "serve", *argv, "--port", port]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        simulated = Simulated(process)
        threading.Thread(target=simulated.read, daemon=True).start()
        started.append(simulated)
        return simulated

    yield start
    for simulated in started:
        if simulated.process.poll() is None:
            simulated.process.kill()
        simulated.process.wait()
