"""kill -9 in mid-sweep, then the same command: one result for each point, nothing twice, nothing left."""

import random
import signal
from collections.abc import Iterator, Mapping

import pytest

from tests.e2e import local_pods, stored
from tests.e2e.command import H100, SPEED, Kprof
from tests.e2e.conftest import ClusterSweep, Sweep
from tests.e2e.kube import Kube
from tests.e2e.local_pods import LocalSampler
from tests.e2e.sampler import PodSampler
from tests.e2e.test_e2e_sweep import figures
from tests.e2e.waiting import wait_until

POINTS = 11
LOCAL = ("sweep", H100, "--on", "local", *SPEED, "--format", "json")
LAST_RESULT_SECONDS = 100.0
TRIES = 5
TRIES_SECONDS = 400


def killed_at(kprof: Kprof, arguments: tuple[str, ...], seconds: float) -> bool:
    """Run the command and kill it after so many seconds; say whether it still ran."""
    running = kprof.start(*arguments)
    if running.ends_within(seconds):
        return False
    running.signal(signal.SIGKILL)
    running.process.wait()
    return True


def homes(kprof: Kprof) -> Iterator[Kprof]:
    """Yield that kprof and then others, each with a store of its own: a kill at one moment may come too late."""
    yield kprof
    for number in range(1, TRIES):
        folder = kprof.folder / f"again-{number}"
        folder.mkdir()
        yield Kprof(folder, kprof.kubeconfig, kprof.started)


def killed_with_every_result(kprof: Kprof, arguments: tuple[str, ...]) -> bool:
    """Kill the command when its last result is stored, before it has cleaned up; say whether it still ran."""
    running = kprof.start(*arguments)

    def complete() -> bool:
        ended = running.process.poll() is not None  # asked first: what it has stored by its end is there
        done = len(stored.results(kprof.store)) == POINTS
        assert done or not ended, "the sweep ended before its last result"
        return done

    wait_until("every point has a result", complete, seconds=LAST_RESULT_SECONDS, every=0.002)
    running.signal(signal.SIGKILL)
    return running.process.wait() == -signal.SIGKILL


def killed_when_the_first_pod_is_asked_for(kprof: Kprof, arguments: tuple[str, ...]) -> None:
    """Kill the command between the note that a pod will be made and the note that it was."""
    running = kprof.start(*arguments)
    wait_until("a pod is asked for", lambda: stored.attempts(kprof.store), seconds=60, every=0.002)
    running.signal(signal.SIGKILL)
    running.process.wait()


def check_store(kprof: Kprof, uids: Mapping[str, set[str]]) -> None:
    """Check that one run holds one result for each point, and that each point was one pod from first to last."""
    assert len(stored.runs(kprof.store)) == 1
    results = stored.results(kprof.store)
    assert len(results) == len({result.point for result in results}) == POINTS
    attempts = stored.attempts(kprof.store)
    assert len({attempt.point_hash for attempt in attempts}) == POINTS
    assert all(attempt.ended for attempt in attempts)
    made: dict[str, set[str]] = {point: set(seen) for point, seen in uids.items()}
    for attempt in attempts:
        made.setdefault(attempt.point_hash, set()).update({attempt.uid} if attempt.uid else set())
    # A pod that a killed kprof left is adopted, so no configuration is ever paid for twice.
    assert {point: len(seen) for point, seen in made.items()} == dict.fromkeys(made, 1)


@pytest.mark.parametrize("seed", range(4))
def test_killed_twice_on_this_machine(seed: int, kprof: Kprof, local_sweep: Sweep) -> None:
    """Two kills at random moments, then the same command to its end: the summary is that of a quiet sweep."""
    moments = random.Random(seed)
    with LocalSampler(kprof.state) as sampler:
        kills = [killed_at(kprof, LOCAL, moments.uniform(0.8, 3.5)) for _ in range(2)]
        outcome = kprof.run(*LOCAL)
    assert any(kills)
    assert outcome.code == 0, outcome.stderr
    assert figures(outcome) == figures(local_sweep.outcome)
    check_store(kprof, sampler.uids)
    assert local_pods.pods(kprof.state) == []
    assert local_pods.lasting_processes(kprof.state) == []


@pytest.mark.timeout(TRIES_SECONDS, func_only=True)
def test_killed_at_the_first_pod_and_after_the_last_result_on_this_machine(kprof: Kprof, local_sweep: Sweep) -> None:
    """Between the last result and the deletion of its pod: the same command has nothing to run, but to clean up."""
    for home in homes(kprof):
        with LocalSampler(home.state) as sampler:
            killed_when_the_first_pod_is_asked_for(home, LOCAL)
            in_time = killed_with_every_result(home, LOCAL)
            outcome = home.run(*LOCAL)
        if in_time:
            break
    assert in_time, "every kill came too late to prove anything"
    assert outcome.code == 0, outcome.stderr
    assert figures(outcome) == figures(local_sweep.outcome)
    check_store(home, sampler.uids)
    assert local_pods.pods(home.state) == []
    assert local_pods.lasting_processes(home.state) == []


@pytest.mark.fault(33, "R")
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_again_and_again_on_the_cluster(
    seed: int, kube: Kube, namespace: str, cluster_kprof: Kprof, local_sweep: Sweep
) -> None:
    """Killed at its first pod, then at three random moments, then left to its end: the summary of a quiet sweep."""
    moments = random.Random(100 + seed)
    arguments = ("sweep", H100, *SPEED, "--format", "json", "-n", namespace)
    with PodSampler(kube, namespace) as sampler:
        killed_when_the_first_pod_is_asked_for(cluster_kprof, arguments)
        kills = [killed_at(cluster_kprof, arguments, moments.uniform(1.5, 7.0)) for _ in range(3)]
        outcome = cluster_kprof.run(*arguments)
        left = kube.left()
    assert any(kills)
    assert outcome.code == 0, outcome.stderr
    assert left == []
    assert figures(outcome) == figures(local_sweep.outcome)
    check_store(cluster_kprof, sampler.uids)
    assert max((len(seen) for seen in sampler.ended.values()), default=1) == 1
    assert max(sample.own_gpus for sample in sampler.samples) <= kube.gpus()


@pytest.mark.fault(33, "R")
@pytest.mark.timeout(TRIES_SECONDS, func_only=True)
def test_killed_after_the_last_result_on_the_cluster(
    kube: Kube, namespace: str, cluster_kprof: Kprof, cluster_sweep: ClusterSweep
) -> None:
    """Pods and anchor of a kprof that was killed at the very end go with the next run of the same command."""
    arguments = ("sweep", H100, *SPEED, "--format", "json", "-n", namespace)
    for home in homes(cluster_kprof):
        with PodSampler(kube, namespace) as sampler:
            in_time = killed_with_every_result(home, arguments) and bool(kube.left(namespace))
            outcome = home.run(*arguments)
            left = kube.left(namespace)
        if in_time:
            break
    assert in_time, "every kill came too late to prove anything"
    assert outcome.code == 0, outcome.stderr
    assert left == []
    assert figures(outcome) == figures(cluster_sweep.outcome)
    check_store(home, sampler.uids)
