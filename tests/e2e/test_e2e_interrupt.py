"""Ctrl-C and SIGTERM in mid-sweep: 130, nothing left, and the same command goes on from there."""

import signal
from functools import partial

import pytest

from tests.e2e import local_pods, stored
from tests.e2e.command import H100, Kprof, Outcome
from tests.e2e.conftest import Sweep
from tests.e2e.kube import Kube
from tests.e2e.test_e2e_sweep import figures
from tests.e2e.waiting import wait_until

POINTS = 11
# Slow enough that points are still at work when the results of others are seen, or that none has a result yet.
SPEED = ("--simulate", "--simulate-speed", "20")
SLOW = ("--simulate", "--simulate-speed", "2")
# From the note that a pod will be made to its creation, on machines of different speed.
CREATING_SECONDS = (0.03, 0.05, 0.08, 0.13)
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])


def interrupted(kprof: Kprof, number: signal.Signals, results: int, *arguments: str) -> Outcome:
    """Start a sweep, send the signal when so many points are done and others at work, and wait for the end."""
    running = kprof.start(*arguments)

    def under_way() -> bool:
        assert running.process.poll() is None, "the sweep ended before the signal"
        return bool(stored.attempts(kprof.store)) and len(stored.results(kprof.store)) >= results

    wait_until(f"a pod is asked for and {results} points are done", under_way, seconds=60, every=0.005)
    running.signal(number)
    return running.outcome(seconds=60)


def check_interrupted(outcome: Outcome) -> None:
    """Check what the user is told: no answer on stdout, one sentence on stderr, exit code 130."""
    assert outcome.code == 130, outcome.stderr
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.stderr
    assert outcome.stderr.count("interrupted") == 1
    assert "the same command resumes" in outcome.stderr


def check_resumed(kprof: Kprof, before: list[stored.Result], outcome: Outcome, quiet: Outcome) -> None:
    """Check that the points that were done stayed as they were, and that the whole is that of a quiet sweep."""
    assert outcome.code == 0, outcome.stderr
    after = {result.point: result for result in stored.results(kprof.store)}
    assert len(after) == POINTS
    assert [after[result.point] for result in before] == before
    assert len(stored.runs(kprof.store)) == 1
    assert figures(outcome) == figures(quiet)


@BOTH
def test_interrupted_on_this_machine(number: signal.Signals, kprof: Kprof, local_sweep: Sweep) -> None:
    """On this machine nothing is left in the state folder, and no process."""
    arguments = ("sweep", H100, "--on", "local", *SPEED, "--format", "json")
    outcome = interrupted(kprof, number, 2, *arguments)
    assert local_pods.pods(kprof.state) == []
    assert local_pods.lasting_processes(kprof.state) == []
    check_interrupted(outcome)
    before = stored.results(kprof.store)
    assert 2 <= len(before) < POINTS
    check_resumed(kprof, before, kprof.run(*arguments), local_sweep.outcome)


@pytest.mark.fault(32, "A")
@BOTH
def test_interrupted_on_the_cluster(
    number: signal.Signals, kube: Kube, namespace: str, cluster_kprof: Kprof, local_sweep: Sweep
) -> None:
    """On the cluster neither pods nor the anchor are there when the command has returned."""
    arguments = ("sweep", H100, *SPEED, "--format", "json", "-n", namespace)
    outcome = interrupted(cluster_kprof, number, 2, *arguments)
    assert kube.left(namespace) == []
    check_interrupted(outcome)
    before = stored.results(cluster_kprof.store)
    assert 2 <= len(before) < POINTS
    check_resumed(cluster_kprof, before, cluster_kprof.run(*arguments), local_sweep.outcome)


def _asked(kprof: Kprof, before: int) -> bool:
    return len(stored.attempts(kprof.store)) > before


@pytest.mark.fault(32, "A")
def test_interrupted_while_pods_are_created(kube: Kube, namespace: str, cluster_kprof: Kprof) -> None:
    """A pod whose creation the server has not confirmed yet is gone too when the command has returned."""
    arguments = ("sweep", H100, *SLOW, "--fresh", "--format", "json", "-n", namespace)
    left: dict[float, list[str]] = {}
    for moment in CREATING_SECONDS:
        noted = len(stored.attempts(cluster_kprof.store))
        running = cluster_kprof.start(*arguments)
        wait_until("a pod is asked for", partial(_asked, cluster_kprof, noted), seconds=60, every=0.002)
        running.ends_within(moment)
        running.signal(signal.SIGINT)
        outcome = running.outcome(seconds=60)
        left[moment] = kube.left(namespace)
        check_interrupted(outcome)
    assert stored.results(cluster_kprof.store) == []
    assert {moment: names for moment, names in left.items() if names} == {}
