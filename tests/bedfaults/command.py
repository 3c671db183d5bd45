"""kprof with shorter limits, what it says while it runs, and small matrices for it."""

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e import stored
from tests.e2e.command import Kprof, Running
from tests.e2e.kube import IMAGE, Object
from tests.e2e.waiting import wait_until

# Limits that a user cannot set are set from outside: minutes of waiting would prove no more than seconds.
_SHORTENED = """
import importlib, json, sys
for place, value in json.loads(sys.argv.pop(1)).items():
    module, _, name = place.partition(":")
    found = importlib.import_module(module)
    if not hasattr(found, name):
        sys.exit(f"there is no {place}")
    setattr(found, name, value)
from orchestrator.cli.app import main
main()
"""
NODE_LOST = "orchestrator.profile.point_run:NODE_LOST_SECONDS"
FITS_NOWHERE = "orchestrator.profile.queueing:FITS_NOWHERE_SECONDS"
GONE_GRACE = "orchestrator.cluster.kubernetes.adapter:GONE_GRACE_SECONDS"
SEEN_SECONDS = 60.0


@dataclass
class ShortKprof(Kprof):
    """The command, with constants of its modules changed: `{"module:NAME": seconds}`."""

    limits: dict[str, float] = field(default_factory=dict)

    def start(self, *arguments: str, kubeconfig: Path | None = None) -> Running:
        """Start `kprof ARGUMENTS`."""
        if not self.limits:
            return super().start(*arguments, kubeconfig=kubeconfig)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KPROF_")}
        environment |= {"KUBECONFIG": str(kubeconfig or self.kubeconfig), "KPROF_STATE": str(self.state)}
        environment |= {"KPROF_STORE": f"sqlite:///{self.store}", "COLUMNS": "200"}
        words = [sys.executable, "-c", _SHORTENED, json.dumps(self.limits), *arguments]
        running = Running(words, self.folder, environment)
        self.started.append(running)
        return running

    def kinds(self) -> dict[str, str | None]:
        """Return the failure kind of each stored result by point, None for a point that was ready."""
        return {
            result.point: (result.document.get("failure") or {}).get("kind") for result in stored.results(self.store)
        }

    def attempts(self) -> int:
        """Return how many pods were asked for."""
        return len(stored.attempts(self.store))


def said(running: Running) -> list[tuple[str, str]]:
    """Return what a sweep has said so far: point and words, in order."""
    text = running._files[1].read_text(encoding="utf-8", errors="replace")
    lines = [line[len("00:00:00 ") :].partition(": ") for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [(point, words.strip()) for point, found, words in lines if found]


def stages(running: Running) -> dict[str, str]:
    """Return what was said last of each point."""
    return dict(said(running))


def wait_for_words(running: Running, words: str, *, seconds: float = SEEN_SECONDS) -> None:
    """Wait until the sweep has said so of some point."""

    def heard() -> bool:
        assert running.process.poll() is None, f"the sweep ended before it said {words!r}:\n{said(running)}"
        return any(words in text for _, text in said(running))

    wait_until(f"the sweep says {words!r}", heard, seconds=seconds)


def matrix(folder: Path, *groups: Object, speed: float = 200, **defaults: object) -> str:
    """Write a matrix of these groups, on the simulator's image as if it were vLLM's."""
    settings = {
        "image": IMAGE,
        "pod": {"imagePullPolicy": "Never"},
        "env": {"KPROF_SIMULATE_SPEED": f"{speed:g}"},
        **defaults,
    }
    document = {"version": 1, "name": "faults", "defaults": settings, "groups": list(groups)}
    path = folder / "faults.yaml"
    path.write_text(json.dumps(document, indent=1))  # as YAML the same mapping twice would become an alias
    return str(path)


def group(name: str, **fields: object) -> Object:
    """Return a group of one point of a small model."""
    return {"name": name, "model": "Qwen/Qwen3-0.6B", **fields}
