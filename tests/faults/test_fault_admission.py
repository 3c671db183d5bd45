"""What the API server and its admission refuse: quotas, policies, webhooks, rights, namespaces."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import ClusterError, KprofError, UsageError
from orchestrator.profile.queueing import CREATE_PAUSE_SECONDS, LONGEST_CREATE_PAUSE_SECONDS
from tests.faults.calls import Call
from tests.faults.faults import is_create, is_dry_run, refusal
from tests.faults.server import NAMESPACE, FaultServer
from tests.faults.statuses import Object, forbidden
from tests.faults.sweeping import Bench, on_bench

QUOTA = 'pods "p" is forbidden: exceeded quota: q, requested: requests.nvidia.com/gpu={}, used: {}, limited: {}'
LIMIT_RANGE = 'pods "p" is forbidden: maximum memory usage per Container is 1Gi, but limit is 64Gi'
POD_SECURITY = 'pods "p" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'
DENIED = 'admission webhook "policy.example.com" denied the request: images must come from our registry'
FAILING = 'failed calling webhook "policy.example.com": Post "https://policy:443/": dial tcp: connection refused'


def _words(asked: int, used: int, limit: int) -> str:
    gpu = "requests.nvidia.com/gpu={}".format
    return QUOTA.format(asked, gpu(used), gpu(limit))


def _charging(server: FaultServer, limit: int) -> Callable[[Call, Object], None]:
    """Return an admission that lets so many GPUs be used at once, dry runs included."""

    def admission(_call: Call, item: Object) -> None:
        if item.get("kind") == "Pod" and len(server.pods) + 1 > limit:
            raise forbidden(_words(1, len(server.pods), limit))

    return admission


async def _refused(bench: Bench, kind: type[KprofError], words: str) -> KprofError:
    """Check that the sweep does not begin: nothing was created and nothing recorded."""
    with pytest.raises(kind, match=words) as caught:
        await bench.sweep()
    assert bench.server.left() == []
    assert bench.server.asked("POST", "/pods") == []
    assert bench.store.latest_run() is None
    return caught.value


@pytest.mark.fault(20, "W")
def test_fault_20_a_quota_in_use(tmp_path: Path) -> None:
    """Waits for its turn, and asks ever more rarely, while the quota is used up by other points."""

    async def work(bench: Bench) -> None:
        bench.server.api.admission = _charging(bench.server, 1)
        results = await bench.sweep()
        assert [result.failure_kind for result in results] == [None] * 3
        assert bench.server.left() == []

    on_bench(tmp_path, work, points=3, factor=100)


@pytest.mark.fault(20, "W")
def test_fault_20_a_quota_that_others_use(tmp_path: Path) -> None:
    """Asks again, first after 10 s and then ever more rarely, until others have freed the quota."""
    meant = [min(LONGEST_CREATE_PAUSE_SECONDS, CREATE_PAUSE_SECONDS * 1.5**number) for number in range(5)]

    async def work(bench: Bench) -> None:
        fault = refusal(403, "Forbidden", _words(1, 4, 4), where=is_create, times=5)
        bench.server.faults.add(fault)
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        at = [call.seconds for call in bench.server.asked("POST", "/pods")]
        assert len(at) == 6
        pauses = [later - sooner for sooner, later in itertools.pairwise(at)]
        assert all(pause >= 0.75 * least for pause, least in zip(pauses, meant, strict=True))
        assert sum(pauses) < 1.25 * sum(meant) + 100  # together: a busy machine may make any of them longer
        assert any("exceeded quota" in progress.stage for progress in bench.progress)

    on_bench(tmp_path, work, factor=20)


@pytest.mark.fault(20, "P(pod.quota)")
def test_fault_20_a_request_beyond_the_quota(tmp_path: Path) -> None:
    """Records `pod.quota` at once where the request alone is over the quota: no waiting could help."""

    async def work(bench: Bench) -> None:
        bench.server.faults.add(refusal(403, "Forbidden", _words(6, 0, 5), where=is_create))
        await bench.sweep()
        kind, line = bench.failure()
        assert kind == "pod.quota"
        assert "exceeded quota" in line
        assert len(bench.server.asked("POST", "/pods")) == 1

    on_bench(tmp_path, work)


@pytest.mark.fault(20, "A")
def test_fault_20_a_request_beyond_the_quota_is_found_before_the_start(tmp_path: Path) -> None:
    """Refuses to begin where a point's request alone is over the quota."""

    async def work(bench: Bench) -> None:
        bench.server.faults.add(refusal(403, "Forbidden", _words(6, 0, 5), where=is_dry_run))
        await _refused(bench, KprofError, "exceeded quota")

    on_bench(tmp_path, work)


@pytest.mark.fault(21, "A")
def test_fault_21_a_limit_range(tmp_path: Path) -> None:
    """Refuses to begin, with the point's name and the server's words: a dry run of every pod comes first."""

    async def work(bench: Bench) -> None:
        bench.server.faults.add(refusal(403, "Forbidden", LIMIT_RANGE, where=is_dry_run))
        error = await _refused(bench, UsageError, r"g0: .*maximum memory usage per Container is 1Gi")
        assert error.remedy == "mend `pod:` of the matrix"

    on_bench(tmp_path, work)


@pytest.mark.fault(22, "A")
def test_fault_22_pod_security(tmp_path: Path) -> None:
    """Refuses to begin, with the point's name and the rule that its pod violates."""

    async def work(bench: Bench) -> None:
        bench.server.faults.add(refusal(403, "Forbidden", POD_SECURITY, where=is_dry_run))
        await _refused(bench, UsageError, r'g0: .*violates PodSecurity "restricted:latest"')

    on_bench(tmp_path, work)


@pytest.mark.fault(23, "A")
@pytest.mark.parametrize(
    ("verb", "resource"), [("create", "pods"), ("get", "pods/log"), ("create", "configmaps"), ("update", "leases")]
)
def test_fault_23_a_right_that_is_missing(tmp_path: Path, verb: str, resource: str) -> None:
    """Asks for every right before it begins, and names the one that is missing."""

    async def work(bench: Bench) -> None:
        bench.server.denied.add((verb, resource))
        error = await _refused(bench, ClusterError, f"no right to {verb} {resource} in namespace {NAMESPACE}")
        assert "docs/rbac.md" in (error.remedy or "")

    on_bench(tmp_path, work)


@pytest.mark.fault(23, "A")
def test_fault_23_a_right_that_is_taken_away(tmp_path: Path) -> None:
    """Ends the sweep with the server's words, and deletes what it had created."""
    words = 'pods is forbidden: User "u" cannot create resource "pods" in API group ""'

    async def work(bench: Bench) -> None:
        bench.server.faults.add(refusal(403, "Forbidden", words, where=is_create))
        with pytest.raises(ClusterError, match='User "u" cannot create resource'):
            await bench.sweep()
        assert bench.server.left() == []
        assert bench.results() == []

    on_bench(tmp_path, work)


@pytest.mark.fault(24, "A")
def test_fault_24_a_webhook_denies_a_pod(tmp_path: Path) -> None:
    """Refuses to begin, with the point's name and the webhook's words."""

    async def work(bench: Bench) -> None:
        bench.server.faults.add(refusal(403, "Forbidden", DENIED, where=is_dry_run))
        await _refused(bench, UsageError, "g0: .*images must come from our registry")

    on_bench(tmp_path, work)


@pytest.mark.fault(24, "P(pod.admission)")
def test_fault_24_a_webhook_denies_one_pod_later(tmp_path: Path) -> None:
    """Records `pod.admission` for the one point whose pod is denied, and measures the others."""

    async def work(bench: Bench) -> None:
        bench.server.faults.add(refusal(403, "Forbidden", DENIED, where=is_create, times=1))
        results = await bench.sweep()
        assert sorted(str(result.failure_kind) for result in results) == ["None", "None", "pod.admission"]
        assert bench.server.left() == []

    on_bench(tmp_path, work, points=3)


@pytest.mark.fault(24, "R")
def test_fault_24_a_webhook_that_does_not_answer(tmp_path: Path) -> None:
    """Asks again until the webhook answers."""

    async def work(bench: Bench) -> None:
        trial = bench.server.faults.add(refusal(500, "InternalError", FAILING, where=is_dry_run, times=2))
        meant = bench.server.faults.add(refusal(500, "InternalError", FAILING, where=is_create, times=4))
        (result,) = await bench.sweep()
        assert (trial.met, meant.met) == (2, 4)
        assert result.failure_kind is None

    on_bench(tmp_path, work)


@pytest.mark.fault(25, "A")
def test_fault_25_a_namespace_that_is_not_there(tmp_path: Path) -> None:
    """Refuses to begin, with the command that creates the namespace."""

    async def work(bench: Bench) -> None:
        bench.server.objects.remove(("namespaces", "", NAMESPACE))
        error = await _refused(bench, ClusterError, f"namespace {NAMESPACE} does not exist")
        assert error.remedy == f"kubectl create namespace {NAMESPACE}"

    on_bench(tmp_path, work)


@pytest.mark.fault(25, "A")
def test_fault_25_a_namespace_that_is_being_deleted(tmp_path: Path) -> None:
    """Refuses to begin, or ends the sweep, with the server's words; no point is blamed."""
    words = f'pods "p" is forbidden: unable to create new content in namespace {NAMESPACE}: being terminated'

    def terminating(_call: Call, _item: Object) -> None:
        raise forbidden(words, "NamespaceTerminating")

    async def work(bench: Bench) -> None:
        admission, bench.server.api.admission = bench.server.api.admission, terminating
        await _refused(bench, ClusterError, "being terminated")
        bench.server.api.admission = admission
        bench.server.faults.add(refusal(403, "Forbidden", words, where=is_create, cause="NamespaceTerminating"))
        with pytest.raises(ClusterError, match="being terminated"):
            await bench.sweep()
        assert bench.results() == []
        assert bench.server.left() == []

    on_bench(tmp_path, work)
