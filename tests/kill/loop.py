"""kprof is killed again and again, at random and while pods are at work; what came of it is counted."""

import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.e2e import stored
from tests.e2e.command import Kprof, Outcome, Running
from tests.kill.places import Place

POINTS = 8
END_SECONDS = 120.0
# One kill in ten comes while kprof starts. Half of all kills come soon after a pod is seen at work, whatever the
# machine's speed. The others come at any moment after kprof has begun to drive the run.
EARLY_SHARE = 0.1
EARLY_SECONDS = 0.9
AIMED_SHARE = 0.5
AIMED_SECONDS = 0.2
POLL_SECONDS = 0.01
MEAN_SECONDS = 0.8
LATEST_SECONDS = 6.0
FIRST_WORD_SECONDS = 60.0


@dataclass
class Figures:
    """What happened: all of `leaked`, `lost` and `double` must stay empty."""

    kills: int = 0
    busy: int = 0  # kills while a pod was there whose result was not
    runs: int = 0
    points: int = 0
    pods: int = 0
    leaked: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def line(self) -> str:
        """Return the figures as one line."""
        good = f"{self.kills} kills, {self.busy} of them with pods at work, {self.runs} runs, {self.points} points"
        bad = f"{len(self.leaked)} leaked, {len(self.lost)} lost, {len(self.double)} double"
        return f"{good}, {self.pods} pods; {bad}; {self.seconds:.0f} seconds"


def write_matrix(folder: Path) -> str:
    """Write a matrix of many points that take no time."""
    lengths = list(range(1000, 1000 + POINTS))
    group = {"name": "quick", "model": "Qwen/Qwen3-0.6B", "arguments": {"max-model-len": lengths}}
    document = {
        "version": 1,
        "name": "quick",
        "defaults": {"image": "vllm/vllm-openai:v0.11.0"},
        "groups": [group],
    }
    path = folder / "quick.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


class KillLoop:
    """One kprof in one place, killed until the figures say so many kills."""

    def __init__(self, kprof: Kprof, place: Place, seed: int) -> None:
        self.figures = Figures()
        self._kprof = kprof
        self._place = place
        self._random = random.Random(seed)
        speed = ("--simulate", "--simulate-speed", "10000", "--format", "json")
        self._command = ("sweep", write_matrix(kprof.folder), *speed, *place.arguments)
        self._results: set[tuple[str, str]] = set()

    def run(self, kills: int) -> Figures:
        """Start run after run until so many kills are done; the last run is left to its end."""
        begin = time.monotonic()
        while self.figures.kills < kills:
            outcome = self._one_run(kills)
            self.figures.runs += 1
            self.figures.points += POINTS
            self._check(outcome)
        self.figures.seconds = time.monotonic() - begin
        return self.figures

    def _one_run(self, kills: int) -> Outcome:
        before = len(stored.runs(self._kprof.store))
        while True:
            # Killed before it had recorded its run, the same command would find the run before it, and be done.
            fresh = ("--fresh",) if len(stored.runs(self._kprof.store)) == before else ()
            running = self._kprof.start(*self._command, *fresh)
            if self.figures.kills == kills or self._ends_first(running):
                outcome = running.outcome(END_SECONDS)
                self._kprof.started.clear()
                return outcome
            running.signal(signal.SIGKILL)
            running.process.wait()
            self.figures.kills += 1
            self.figures.busy += self._busy()
            self._note_lost()

    def _ends_first(self, running: Running) -> bool:
        """Wait until the moment of the kill and say whether the command ended before."""
        kind = self._random.random()
        if kind < EARLY_SHARE:
            return running.ends_within(self._random.uniform(0, EARLY_SECONDS))
        limit = time.monotonic() + FIRST_WORD_SECONDS
        aimed = kind < EARLY_SHARE + AIMED_SHARE
        while not (_said(running) and (self._busy() or not aimed)) and time.monotonic() < limit:
            if running.ends_within(POLL_SECONDS):
                return True
        # Half of the aimed kills come at once, the others when the pod may be done.
        seconds = (
            max(0.0, self._random.uniform(-AIMED_SECONDS, AIMED_SECONDS))
            if aimed
            else min(LATEST_SECONDS, self._random.expovariate(1 / MEAN_SECONDS))
        )
        return running.ends_within(seconds)

    def _busy(self) -> bool:
        return any(attempt.uid and not attempt.ended for attempt in stored.attempts(self._kprof.store))

    def _note_lost(self) -> None:
        """A result that was there once must be there for ever, as it was."""
        now = {(result.point, result.recorded_at) for result in stored.results(self._kprof.store)}
        self.figures.lost += [f"{point} of {at}" for point, at in self._results - now]
        self._results |= now

    def _check(self, outcome: Outcome) -> None:
        """Look at everything when a run has ended."""
        assert outcome.code == 0, outcome.stderr
        assert "Traceback" not in outcome.stderr, outcome.stderr
        self.figures.leaked += self._place.left()
        self._note_lost()
        results = Counter(result.point for result in stored.results(self._kprof.store))
        runs = self.figures.runs
        assert len(stored.runs(self._kprof.store)) == runs
        self.figures.lost += [f"{point}: {count} of {runs}" for point, count in results.items() if count < runs]
        self.figures.lost += ["a point without any result"] * (POINTS - len(results))
        self.figures.double += [f"{point}: {count} of {runs}" for point, count in results.items() if count > runs]
        made = self._place.made()
        self.figures.pods = made.total()
        self.figures.double += [f"pod {name}: {count} times" for name, count in made.items() if count > 1]
        again = [attempt.pod for attempt in stored.attempts(self._kprof.store) if attempt.attempt or not attempt.ended]
        self.figures.double += [f"{pod}: another attempt, or one without an end" for pod in again]


def _said(running: Running) -> bool:
    """Say whether the command has begun to talk: its first line comes when it drives the run."""
    return running._files[1].stat().st_size > 0
