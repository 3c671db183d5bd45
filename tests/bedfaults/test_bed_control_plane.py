"""The API server or etcd is away, or kprof itself stands still, while points are at work."""

import signal
import time

import pytest

from tests.bed.control import Control
from tests.bedfaults.command import ShortKprof, group, matrix, said, stages
from tests.bedfaults.conftest import OUTAGE_SECONDS
from tests.bedfaults.quota import limit_gpus
from tests.e2e import stored
from tests.e2e.command import H100, Running
from tests.e2e.kube import Kube
from tests.e2e.test_e2e_sweep import FAILED, READY, check_summary
from tests.e2e.waiting import wait_until

SPEED = ("--simulate", "--simulate-speed", "4")
QUOTA = 6
RIGHT_AGAIN_SECONDS = 60.0
POINTS = READY + len(FAILED)
STARTING = ("starting", "loading weights", "profiling memory", "building KV cache", "capturing graphs", "warming up")
FROZEN_SECONDS = 20.0
STOPPED_SECONDS = 60.0


def wait_for_all_stages(running: Running) -> dict[str, str]:
    """Wait for a moment at which one point queues, one starts and one is probed; return what each point does."""

    def all_three() -> dict[str, str] | None:
        assert running.process.poll() is None, "the sweep ended too early"
        now = stages(running)
        words = list(now.values())
        queued = any(text.startswith("queued") for text in words)
        return now if queued and "probing live" in words and any(text in STARTING for text in words) else None

    return wait_until("points queue, start and are probed at once", all_three, seconds=60, every=0.005)


@pytest.mark.fault(1, "R")
def test_fault_01_an_outage_of_the_api_server(control: Control, kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Sits the outage out: no point fails, and what it knows is right within a minute of the API server's return."""
    limit_gpus(kube, namespace, QUOTA)
    running = kprof.start("sweep", H100, *SPEED, "--format", "json", "-n", namespace)
    before = wait_for_all_stages(running)
    with control.stopped("kube-apiserver", signal.SIGKILL):
        time.sleep(OUTAGE_SECONDS)
        assert running.process.poll() is None, running.outcome().stderr
        told, results = len(said(running)), len(stored.results(kprof.store))
    back = time.monotonic()

    def right_again() -> bool:
        return len(said(running)) > told or len(stored.results(kprof.store)) > results

    wait_until("kprof has news", right_again, seconds=RIGHT_AGAIN_SECONDS)
    first = time.monotonic() - back
    under_way = [point for point, words in before.items() if words == "probing live" or words in STARTING]

    def moved() -> bool:
        now = stages(running)
        return all(now[point] != before[point] for point in under_way)

    wait_until(f"kprof has news of {under_way}", moved, seconds=RIGHT_AGAIN_SECONDS - first)
    last = time.monotonic() - back
    print(f"\n{OUTAGE_SECONDS:.0f} s without API server: first news after {first:.1f} s, of all that ran {last:.1f} s")
    # How soon the quota counts what has gone is the controller manager's business: its watches come back minutes later.
    kube.call("delete", "quota", "gpus", "-n", namespace)
    check_summary(running.outcome(200))
    assert kprof.attempts() == POINTS, "a point was run again"
    assert kube.left(namespace) == []


@pytest.mark.fault(1, "R")
def test_fault_01_the_api_server_is_restarted_in_good_order(
    control: Control, kube: Kube, namespace: str, kprof: ShortKprof
) -> None:
    """Goes on although an API server that is asked to end keeps its watches open and takes no call for a while."""
    running = kprof.start("sweep", H100, *SPEED, "--format", "json", "-n", namespace)
    wait_until("a result is there", lambda: stored.results(kprof.store), seconds=90)
    with control.stopped("kube-apiserver", signal.SIGTERM):
        assert running.process.poll() is None, "the sweep ended too early"
    check_summary(running.outcome(200))
    assert kprof.attempts() == POINTS
    assert kube.left(namespace) == []


@pytest.mark.fault(3, "R")
def test_fault_03_etcd_hangs(control: Control, kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Repeats what timed out: no point fails and none is run twice while etcd answers nothing for 20 seconds."""
    running = kprof.start("sweep", H100, *SPEED, "--format", "json", "-n", namespace)
    wait_until("a result is there", lambda: stored.results(kprof.store), seconds=90)
    with control.frozen("etcd"):
        time.sleep(FROZEN_SECONDS)
        assert running.process.poll() is None, "the sweep ended too early"
    check_summary(running.outcome(200))
    assert kprof.attempts() == POINTS
    assert kube.left(namespace) == []


@pytest.mark.fault(4, "R")
def test_fault_04_kprof_stands_still_for_a_minute(kube: Kube, namespace: str, kprof: ShortKprof) -> None:
    """Blames no point for a minute in which it did not run itself, though a silence of 30 seconds is the limit."""
    groups = [group(f"point-{number}", arguments={"max-model-len": 1000 + number}) for number in range(3)]
    path = matrix(kprof.folder, *groups, speed=0.8, timeouts={"stallSeconds": 30, "startupSeconds": 100})
    running = kprof.start("sweep", path, "--format", "json", "-n", namespace)
    wait_until("points start", lambda: set(stages(running).values()) & set(STARTING), seconds=60)
    running.signal(signal.SIGSTOP)
    time.sleep(STOPPED_SECONDS)
    running.signal(signal.SIGCONT)
    outcome = running.outcome(150)
    assert outcome.code == 0, outcome.stderr
    assert kprof.kinds() == dict.fromkeys(("point-0", "point-1", "point-2"))
    assert kprof.attempts() == len(groups)
    assert kube.left(namespace) == []
