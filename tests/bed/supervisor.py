"""Process 1 of the bed: sets up its namespaces, keeps its programs running and reaps orphans.

It runs as a script with one argument, the plan that `cluster.py` wrote, and imports nothing of the bed:
when this process ends, the kernel ends everything else in the bed.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RESTARTS = 5
RESTART_DELAY_S = 1.0
NEEDED_S = 30.0
LOOK_S = 0.1


def prepare(plan: dict[str, Any]) -> None:
    """Mount what must not reach the host and bring the network up."""
    for folder in plan["tmpfs"]:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "bed", folder], check=True)
    # The kubelet wants its volumes to be able to propagate, which a private mount cannot.
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    masks = Path(plan["data"]) / "kernel"
    for name, value in plan["kernel_settings"].items():
        mask = masks / name
        mask.parent.mkdir(parents=True, exist_ok=True)
        mask.write_text(value + "\n")
        subprocess.run(["mount", "--bind", str(mask), f"/proc/sys/{name}"], check=True)
    for argv in plan["network"]:
        subprocess.run(argv, check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


class Programs:
    """The programs of the bed, each started again a few times when it ends."""

    def __init__(self, plan: dict[str, Any]) -> None:
        """Start all programs of the plan."""
        self._plan = plan
        self._names: dict[int, str] = {}
        self._starts: dict[str, int] = {}
        for name in plan["programs"]:
            self._start(name)

    def _start(self, name: str) -> None:
        needed = self._plan["needs"].get(name)
        deadline = time.monotonic() + NEEDED_S
        while needed and not Path(needed).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        self._starts[name] = self._starts.get(name, 0) + 1
        environment = {**os.environ, "PATH": self._plan["path"]}
        with (Path(self._plan["logs"]) / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                self._plan["programs"][name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        self._names[child.pid] = name
        # Waiting is done below for all processes alike, orphans included.
        child.returncode = 0

    def reap_for_ever(self) -> None:
        """Reap every process that ends and start programs again; end with status 1 once one has ended too often."""
        parked: set[str] = set()
        while True:
            for free in [name for name in parked if not self._held(name)]:
                parked.remove(free)
                self._start(free)
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                time.sleep(LOOK_S)
                continue
            name = self._names.pop(pid, None)
            if name is None:
                continue
            print(f"{name} ended with {os.waitstatus_to_exitcode(status)}", flush=True)
            if self._held(name):
                # A test wants it down: this end is no failure, and the next start comes when the test says so.
                self._starts[name] -= 1
                parked.add(name)
                continue
            if self._starts[name] > RESTARTS:
                (Path(self._plan["logs"]) / "failed").write_text(name)
                sys.exit(1)
            time.sleep(RESTART_DELAY_S)
            self._start(name)

    def _held(self, name: str) -> bool:
        """Say whether a test holds a program down."""
        return (Path(self._plan["held"]) / name).exists()


def main() -> None:
    """Wait for the word that the host side is there, then run the plan."""
    if sys.stdin.readline().strip() != "go":
        sys.exit("the bed was given up before it started")
    plan = json.loads(Path(sys.argv[1]).read_text())
    prepare(plan)
    Programs(plan).reap_for_ever()


if __name__ == "__main__":
    main()
