"""403 on the creation of a pod: it takes the words to tell one pod's fault from the end of all access."""

from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from tests.faults.calls import Call
from tests.faults.faults import is_create, is_dry_run, refusal
from tests.faults.kueue import QUEUE, Kueue
from tests.faults.statuses import Object, forbidden
from tests.faults.sweeping import Bench, on_bench

FORBIDDEN = 'pods "kp" is forbidden: '
OF_THE_POD = [
    "maximum memory usage per Pod is 1Gi, but limit is 68719476736",
    "minimum cpu usage per Pod is 1, but request is 100m",
    "cpu max limit to request ratio per Pod is 2, but provided ratio is 4.000000",
    "no PriorityClass with name gpu was found",
    "image policy webhook backend denied one or more images: image is not signed",
    'error looking up service account default/gpu: serviceaccount "gpu" not found',
    "PodOverhead set without corresponding RuntimeClass defined Overhead",
    "words that no version of Kubernetes says today",
]
MUST_SPECIFY = "failed quota: team: must specify limits.memory for: vllm"


@pytest.mark.fault(21, "P(pod.admission)")
@pytest.mark.fault(24, "P(pod.admission)")
@pytest.mark.parametrize("words", OF_THE_POD)
def test_fault_24_a_pod_that_is_forbidden_later(tmp_path: Path, words: str) -> None:
    """Takes a 403 that speaks of one pod for that point's failure, with the server's words; the others go on."""

    async def work(bench: Bench) -> None:
        bench.server.faults.add(refusal(403, "Forbidden", FORBIDDEN + words, where=is_create, times=1))
        results = await bench.sweep()
        (failed,) = [result for result in results if result.failure_kind is not None]
        assert failed.failure_kind == "pod.admission"
        assert words in failed.document["failure"]["line"]
        assert len(results) == 3
        assert bench.server.left() == []

    on_bench(tmp_path, work, points=3)


@pytest.mark.fault(21, "A")
@pytest.mark.fault(24, "A")
@pytest.mark.parametrize("words", OF_THE_POD)
def test_fault_24_a_pod_that_is_forbidden_from_the_start(tmp_path: Path, words: str) -> None:
    """Refuses to begin, with the point's name and the server's words, whatever it is that forbids its pod."""

    async def work(bench: Bench) -> None:
        bench.server.faults.add(refusal(403, "Forbidden", FORBIDDEN + words, where=is_dry_run))
        with pytest.raises(UsageError, match="g0: ") as caught:
            await bench.sweep()
        assert words in caught.value.message
        assert bench.server.asked("POST", "/pods") == []

    on_bench(tmp_path, work)


@pytest.mark.fault(20, "P(pod.quota)")
def test_fault_20_a_quota_that_wants_what_the_pod_does_not_say(tmp_path: Path) -> None:
    """Records `pod.quota` at once where a quota wants limits that the pod does not have: no waiting could help."""

    async def work(bench: Bench) -> None:
        bench.server.faults.add(refusal(403, "Forbidden", FORBIDDEN + MUST_SPECIFY, where=is_create))
        await bench.sweep()
        kind, line = bench.failure()
        assert kind == "pod.quota"
        assert MUST_SPECIFY in line
        assert len(bench.server.asked("POST", "/pods")) == 1

    on_bench(tmp_path, work)


@pytest.mark.fault(24, "P(pod.admission)")
def test_fault_24_a_job_that_is_forbidden(tmp_path: Path) -> None:
    """Takes a 403 that speaks of one Job for that point's failure as well."""
    words = "no PriorityClass with name gpu was found"
    met: list[str] = []

    def admission(call: Call, item: Object) -> None:
        if item.get("kind") == "Job" and not call.is_dry and not met:
            met.append(item["metadata"]["name"])
            raise forbidden(f'jobs.batch "{met[0]}" is forbidden: {words}')

    async def work(bench: Bench) -> None:
        bench.server.api.admission = admission
        async with Kueue(bench.server).admitting():
            results = await bench.sweep()
        assert sorted(str(result.failure_kind) for result in results) == ["None", "pod.admission"]

    on_bench(tmp_path, work, points=2, queue=QUEUE)
