"""No node takes the pod: waiting helps where devices are in use or a node is being added, and nowhere else."""

import asyncio
from pathlib import Path

import pytest

from orchestrator.profile.queueing import FITS_NOWHERE_SECONDS
from tests.faults.faults import refusal
from tests.faults.kubelet import PodPlay, Script
from tests.faults.scripts import serving
from tests.faults.server import NAMESPACE
from tests.faults.statuses import Object
from tests.faults.sweeping import LIMITS, Bench, on_bench

QUEUE_SECONDS = LIMITS["queueSeconds"]
SHORT = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes are available: "
NOWHERE = SHORT + "2 Preemption is not helpful for scheduling."
IN_USE = SHORT + "1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
NO_NODES = "no nodes available to schedule pods"
FAST = 100.0


def _unschedulable(words: str, seconds: float | None = None) -> Script:
    """Find no node; with `seconds`, find one after so long."""

    async def script(pod: PodPlay) -> None:
        pod.unschedulable(words)
        if seconds is None:
            await pod.forever()
        await asyncio.sleep(seconds or 0.0)
        await serving(pod)

    return script


def _scale_up(pod: PodPlay) -> Object:
    """Return the event of an autoscaler that adds a node for a pod."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "reason": "TriggeredScaleUp",
        "message": "pod triggered scale-up: [{gpu-pool 0->1 (max: 4)}]",
        "involvedObject": {"kind": "Pod", "name": pod.key[2]},
    }


def _queued(bench: Bench) -> float:
    (result,) = bench.results()
    return float(result.document["seconds"]["queued"])


@pytest.mark.fault(19, "P(pod.unschedulable)")
@pytest.mark.parametrize("words", [NOWHERE, NO_NODES])
def test_fault_19_a_pod_that_fits_nowhere(tmp_path: Path, words: str) -> None:
    """Gives a pod up after 10 minutes that no node would take even if it were empty, with the scheduler's words."""

    async def work(bench: Bench) -> None:
        await bench.sweep()
        assert bench.failure() == ("pod.unschedulable", words)
        assert FITS_NOWHERE_SECONDS <= _queued(bench) < FITS_NOWHERE_SECONDS + 60
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=_unschedulable(words), factor=FAST)


@pytest.mark.fault(19, "W")
def test_fault_19_devices_that_others_hold(tmp_path: Path) -> None:
    """Waits all of `queueSeconds` for devices that pods could give back."""

    async def work(bench: Bench) -> None:
        await bench.sweep()
        assert bench.failure() == ("pod.unschedulable", IN_USE)
        assert QUEUE_SECONDS <= _queued(bench) < QUEUE_SECONDS + 60

    on_bench(tmp_path, work, script=_unschedulable(IN_USE), factor=FAST)


@pytest.mark.fault(19, "W")
def test_fault_19_an_autoscaler_adds_a_node(tmp_path: Path) -> None:
    """Waits on for a pod that fits nowhere while an autoscaler is adding a node for it."""
    waits = _unschedulable(NOWHERE, FITS_NOWHERE_SECONDS + 120)

    async def work(bench: Bench) -> None:
        async def script(pod: PodPlay) -> None:
            bench.server.objects.add(("events", NAMESPACE, f"{pod.key[2]}.1"), _scale_up(pod))
            await waits(pod)

        bench.server.kubelet.script = script
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        assert bench.before_the_log() > FITS_NOWHERE_SECONDS

    on_bench(tmp_path, work, factor=FAST)


@pytest.mark.fault(19, "W")
def test_fault_19_another_pods_node_is_being_added(tmp_path: Path) -> None:
    """Takes no comfort from a node that an autoscaler adds for another pod."""
    nowhere = _unschedulable(NOWHERE)

    async def work(bench: Bench) -> None:
        async def script(pod: PodPlay) -> None:
            event = _scale_up(pod) | {"involvedObject": {"kind": "Pod", "name": "somebody-elses"}}
            bench.server.objects.add(("events", NAMESPACE, "e"), event)
            await nowhere(pod)

        bench.server.kubelet.script = script
        await bench.sweep()
        assert bench.failure()[0] == "pod.unschedulable"
        assert _queued(bench) < QUEUE_SECONDS

    on_bench(tmp_path, work, factor=FAST)


@pytest.mark.fault(19, "W")
def test_fault_19_no_right_to_read_events(tmp_path: Path) -> None:
    """Waits all of `queueSeconds` where it may not ask whether a node is being added."""
    words = 'events is forbidden: User "u" cannot list resource "events" in API group "" in the namespace "default"'

    async def work(bench: Bench) -> None:
        no_right = refusal(403, "Forbidden", words, where=lambda call: call.path.endswith("/events"))
        bench.server.faults.add(no_right)
        (result,) = await bench.sweep()
        assert no_right.met
        assert result.failure_kind is None
        assert bench.before_the_log() > FITS_NOWHERE_SECONDS

    on_bench(tmp_path, work, script=_unschedulable(NOWHERE, FITS_NOWHERE_SECONDS + 120), factor=FAST)
