"""The life of one point on a scripted cluster: what is recorded, when, and that nothing is left."""

import asyncio
import json
import zlib
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.cluster.manifest import render_pod
from orchestrator.cluster.port import Phase, PodRejectedError
from orchestrator.cluster.watch import PodWatch
from orchestrator.errors import ClusterError
from orchestrator.matrix.point import Point
from orchestrator.profile.evidence import LogEvidence
from orchestrator.profile.point_run import PointRun
from orchestrator.profile.result import PointResult, Source
from tests.fakes.cluster import (
    NO_ROOM_LOG,
    READY_LOG,
    SIMULATOR_LOG,
    FakeCluster,
    FakeServer,
    Script,
    ended,
    gone,
    later,
    log,
    running,
    serve,
    state,
    waiting,
)
from tests.fakes.matrix import point

pytestmark = pytest.mark.looptime
LIMITS = {"queueSeconds": 600, "startupSeconds": 1000, "stallSeconds": 200, "probeSeconds": 30}


@dataclass
class Outcome:
    """What a run of one point left behind."""

    cluster: FakeCluster
    of: Point
    stages: list[str] = field(default_factory=list)
    results: list[PointResult] = field(default_factory=list)
    log: bytes = b""

    @property
    def result(self) -> PointResult:
        """Return the only result."""
        (only,) = self.results
        return only

    @property
    def kind(self) -> str | None:
        """Return the failure kind."""
        return None if self.result.failure is None else self.result.failure.kind

    @property
    def happened(self) -> list[str]:
        """Return creation, record and deletion in order."""
        return [name for name, _ in self.cluster.events if name in {"create", "adopt", "reject", "record", "delete"}]


async def _run(script: Script | PodRejectedError, *, source: Source = Source.MEASURED, **fields: Any) -> Outcome:
    of = point(**{"timeouts": LIMITS, **fields})
    outcome = Outcome(FakeCluster({of.hash: script}), of)
    await _play(outcome, source)
    return outcome


async def _play(outcome: Outcome, source: Source = Source.MEASURED) -> None:
    cluster = outcome.cluster

    def record(result: PointResult, evidence: LogEvidence) -> None:
        cluster.events.append(("record", result.pod))
        outcome.results.append(result)
        outcome.log = zlib.decompress(evidence.compressed())

    async with PodWatch(cluster, "r") as watch:
        job = PointRun(cluster, watch, outcome.of, render_pod(outcome.of, "r"), source, 0)
        await job.run(lambda _pod: None, outcome.stages.append, record)


def _ready(server: FakeServer | None = None, head: bytes = b"") -> Script:
    return [later(1, running()), later(1, log(head + READY_LOG)), serve(server or FakeServer())]


async def test_a_point_that_starts_is_measured_recorded_and_deleted() -> None:
    """Facts of the log, figures of /metrics, the live check, the raw log; then the pod goes."""
    server = FakeServer()
    outcome = await _run(_ready(server))
    assert outcome.kind is None
    assert outcome.result.start_up.facts["weights_gib"] == 14.99
    assert outcome.result.node == "node-1"
    assert outcome.result.idle is not None
    assert (outcome.result.idle.num_gpu_blocks, outcome.result.idle.agrees_with_log) == (1443, True)
    assert outcome.log == READY_LOG
    assert outcome.happened == ["create", "record", "delete"]
    assert not outcome.cluster.pods
    assert server.open_requests == 0
    assert {"queued", "startup", "probe", "total"} <= outcome.result.seconds.keys()
    json.dumps(outcome.result.to_json())


async def test_the_stages_are_told_as_they_come() -> None:
    """A progress view follows the pod and the log."""
    stages = (await _run(_ready())).stages
    wanted = ["creating", "queued", "starting", "runtime", "probing", "deleting"]
    assert [stage for stage in stages if stage in wanted] == wanted


# Failures of the engine


async def test_a_failure_that_the_log_proves_is_the_result() -> None:
    """The log's own cause wins over the container's exit code."""
    outcome = await _run([running(), log(NO_ROOM_LOG), later(2, ended(1))])
    assert outcome.kind == "kv.no_room"
    assert outcome.result.failure is not None
    assert "No available memory" in outcome.result.failure.line
    assert outcome.result.failure.remedy
    assert outcome.happened == ["create", "record", "delete"]


async def test_lines_that_come_with_the_end_are_still_read() -> None:
    """The cause is often among the last lines before the container ends."""
    outcome = await _run([later(5, running()), later(3, ended(1)), log(NO_ROOM_LOG)])
    assert outcome.kind == "kv.no_room"


async def test_an_engine_that_fails_but_does_not_end_is_not_waited_for() -> None:
    """A server process may hang after its engine died."""
    clock = asyncio.get_running_loop().time
    begin = clock()
    outcome = await _run([running(), log(NO_ROOM_LOG)])
    assert outcome.kind == "kv.no_room"
    assert clock() - begin < 120
    assert outcome.happened[-2:] == ["record", "delete"]


@pytest.mark.parametrize("code", [0, 1, 137])
async def test_an_end_that_the_log_does_not_explain_keeps_the_last_line(code: int) -> None:
    """Exit code 0 is no success: the server never came up."""
    outcome = await _run([running(), log(b"loading\nthe last words\n"), later(2, ended(code))])
    assert outcome.kind == "engine.died"
    assert outcome.result.failure is not None
    assert "the last words" in outcome.result.failure.line
    assert str(code) in outcome.result.failure.line


async def test_a_container_killed_for_memory_is_host_oom() -> None:
    """Kubernetes says OOMKilled; the log says nothing."""
    outcome = await _run([running(), log(b"loading\n"), later(2, ended(137, "OOMKilled"))])
    assert outcome.kind == "host.oom"
    assert outcome.result.failure is not None
    assert outcome.result.failure.remedy


async def test_a_kill_from_outside_is_not_taken_for_an_engine_that_died() -> None:
    """`Engine core initialization failed` is a consequence; OOMKilled is the cause."""
    lines = b"RuntimeError: Engine core initialization failed. See root cause above.\n"
    assert (await _run([running(), log(lines), later(2, ended(137, "OOMKilled"))])).kind == "host.oom"


# What Kubernetes says


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"reason": "Evicted", "message": "low on disk"}, "pod.evicted"),
        ({"reason": "DeadlineExceeded"}, "pod.deadline"),
        ({"reason": "NodeLost"}, "pod.node_lost"),
        ({"reason": "UnexpectedAdmissionError"}, "pod.admission"),
        ({"reason": "OutOfnvidia.com/gpu"}, "pod.admission"),
        ({"disruption": "PreemptionByScheduler"}, "pod.preempted"),
        ({"disruption": "DeletionByTaintManager"}, "pod.node_lost"),
    ],
)
@pytest.mark.parametrize("started", [True, False])
async def test_a_pod_that_kubernetes_ends_says_why(changes: dict[str, Any], kind: str, started: bool) -> None:
    """Before the container runs as well as after."""
    begin = [running(), log(b"loading\n")] if started else []
    outcome = await _run([*begin, later(3, state(phase=Phase.FAILED, **changes))])
    assert outcome.kind == kind
    assert outcome.happened == ["create", "record", "delete"]


@pytest.mark.parametrize("started", [True, False])
async def test_a_pod_that_somebody_else_deletes_is_lost(started: bool) -> None:
    """It is noticed at once, not after the time limit."""
    begin = asyncio.get_running_loop().time()
    outcome = await _run([*([running(), log(b"x\n")] if started else []), later(3, gone())])
    assert outcome.kind == "pod.node_lost"
    assert asyncio.get_running_loop().time() - begin < 60


async def test_a_rejected_pod_is_a_result() -> None:
    """Quota and admission refuse it before it exists: nothing is there to delete."""
    outcome = await _run(PodRejectedError("pod.quota", "exceeded quota: gpus"))
    assert outcome.kind == "pod.quota"
    assert outcome.result.failure is not None
    assert "exceeded quota" in outcome.result.failure.line
    assert outcome.result.failure.remedy
    assert outcome.happened == ["reject", "record"]


async def test_an_image_that_cannot_be_pulled_fails_after_a_grace() -> None:
    """A registry may come back; five minutes later it has not."""
    outcome = await _run([later(1, waiting("ImagePullBackOff", "no such tag"))])
    assert outcome.kind == "pod.image"
    assert outcome.result.failure is not None
    assert "no such tag" in outcome.result.failure.line
    assert 290 <= outcome.result.seconds["queued"] <= 320


async def test_an_image_pull_that_recovers_is_no_failure() -> None:
    """Back-off, then the image is there."""
    script = [waiting("ErrImagePull"), later(60, waiting("ImagePullBackOff")), later(100, waiting("ErrImagePull"))]
    assert (await _run([*script, later(60, running()), *_ready()[1:]])).kind is None


async def test_the_grace_of_an_image_pull_starts_anew_after_it_recovered() -> None:
    """Two short troubles an hour apart are not one long one."""
    script = [
        waiting("ErrImagePull"),
        later(200, waiting("ContainerCreating")),
        later(200, waiting("ErrImagePull")),
        later(100, running()),
        *_ready()[1:],
    ]
    assert (await _run(script)).kind is None


async def test_an_image_name_that_can_never_work_fails_at_once() -> None:
    """There is nothing to wait for."""
    outcome = await _run([later(1, waiting("InvalidImageName"))])
    assert outcome.kind == "pod.image"
    assert outcome.result.seconds["queued"] < 10


async def test_a_missing_secret_is_given_a_minute() -> None:
    """The kubelet says what is missing."""
    outcome = await _run([waiting("CreateContainerConfigError", 'secret "llm-d-hf-token" not found')])
    assert outcome.kind == "pod.config"
    assert outcome.result.failure is not None
    assert "llm-d-hf-token" in outcome.result.failure.line


# Time


async def test_a_pod_that_finds_no_node_fails_after_its_queueing_time() -> None:
    """With the scheduler's own words."""
    outcome = await _run([state(unschedulable="0/3 nodes: Insufficient nvidia.com/gpu")])
    assert outcome.kind == "pod.unschedulable"
    assert outcome.result.failure is not None
    assert "Insufficient nvidia.com/gpu" in outcome.result.failure.line
    assert 600 <= outcome.result.seconds["queued"] <= 603
    assert outcome.happened == ["create", "record", "delete"]


async def test_a_silent_engine_is_a_hang() -> None:
    """No line for the stall limit; the last one is shown."""
    outcome = await _run([running(), log(b"Loading weights\n")])
    assert outcome.kind == "hang"
    assert outcome.result.failure is not None
    assert "Loading weights" in outcome.result.failure.line
    assert 200 <= outcome.result.seconds["startup"] <= 204


async def test_an_engine_that_talks_but_never_starts_is_a_hang_too() -> None:
    """The start-up limit holds however much is printed."""
    chatter = [later(50, log(b"still loading\n"))] * 40
    outcome = await _run([running(), *chatter])
    assert outcome.kind == "hang"
    assert 1000 <= outcome.result.seconds["startup"] <= 1004


async def test_slow_but_talking_is_no_hang() -> None:
    """Lines reset the stall limit."""
    chatter = [later(150, log(b"still loading\n"))] * 5
    assert (await _run([running(), *chatter, later(100, log(READY_LOG)), serve(FakeServer())])).kind is None


async def test_queueing_does_not_count_as_starting() -> None:
    """A pod that waited long for a device has its whole start-up time."""
    outcome = await _run([later(590, running()), later(190, log(READY_LOG)), serve(FakeServer())])
    assert outcome.kind is None
    assert outcome.result.seconds["startup"] < 200


# Probing


async def test_a_server_that_never_answers_is_still_a_result() -> None:
    """The log proves the start; the probe says why it has no figures."""
    outcome = await _run(_ready(FakeServer(healthy=False)))
    assert outcome.kind is None
    assert outcome.result.idle is None
    assert outcome.result.live is not None
    assert outcome.result.live.agrees is None
    assert outcome.result.live.note
    assert outcome.happened == ["create", "record", "delete"]


@pytest.mark.parametrize("path", ["/metrics", "/v1/models", "/v1/completions"])
@pytest.mark.parametrize("status", [401, 500])
async def test_a_probe_that_is_refused_is_noted(path: str, status: int) -> None:
    """Whatever the server refuses, the point is recorded and its pod deleted."""
    outcome = await _run(_ready(FakeServer(status={path: status})))
    assert outcome.kind is None
    assert outcome.result.live is not None
    assert outcome.result.live.agrees is not True
    assert outcome.happened == ["create", "record", "delete"]


async def test_an_engine_that_dies_under_the_probe_fails() -> None:
    """Ready and then killed is not ready."""
    script = [running(), log(READY_LOG), later(5, ended(137, "OOMKilled"))]
    outcome = await _run(script)
    assert outcome.kind == "host.oom"
    assert outcome.happened == ["create", "record", "delete"]


async def test_the_live_check_agrees_with_true_block_accounting() -> None:
    """The prompt's blocks are held, to the block."""
    server = FakeServer()
    live = (await _run(_ready(server))).result.live
    assert live is not None
    assert live.agrees is True
    assert live.prompt_tokens == server.prompts[0]
    assert live.samples
    for sample in live.samples:
        assert sample.used_blocks == -(-(live.prompt_tokens + sample.generated_tokens) // 128)


@pytest.mark.parametrize(
    "held",
    [lambda prompt, new: 1.0, lambda prompt, new: 2.0 * -(-prompt // 128), lambda prompt, new: prompt / 128 + 0.4],
)
async def test_the_live_check_sees_wrong_block_accounting(held: Any) -> None:
    """Too few, too many, and no whole number of blocks; the result carries a flag."""
    result = (await _run(_ready(FakeServer(held_blocks=held)))).result
    assert result.live is not None
    assert result.live.agrees is False
    assert any("live request" in flag for flag in result.flags)


async def test_a_hybrid_model_is_not_judged_by_plain_arithmetic() -> None:
    """Where tokens are not blocks x block size, one request holds blocks of several groups."""
    lines = READY_LOG.replace(b"184,704", b"92,352")
    server = FakeServer(held_blocks=lambda prompt, new: 2.0 * -(-(prompt + new) // 128))
    live = (await _run([running(), log(lines), serve(server)])).result.live
    assert live is not None
    assert live.agrees is None
    assert live.samples
    assert live.note


async def test_metrics_that_contradict_the_log_are_flagged() -> None:
    """Two witnesses, two numbers."""
    result = (await _run(_ready(FakeServer(num_gpu_blocks=999)))).result
    assert result.idle is not None
    assert result.idle.agrees_with_log is False
    assert any("/metrics" in flag for flag in result.flags)


# Where figures come from


async def test_the_simulators_own_line_marks_the_result_whatever_the_sweep_says() -> None:
    """A simulator image under a real name is never taken for a measurement."""
    outcome = await _run(_ready(head=SIMULATOR_LOG), source=Source.MEASURED)
    assert outcome.result.source is Source.SIMULATED
    assert outcome.result.to_json()["source"] == "SIMULATED"


async def test_a_simulated_sweep_marks_its_results_without_the_line_too() -> None:
    """A pod that never started is simulated as well."""
    outcome = await _run([running(), log(NO_ROOM_LOG), ended(1)], source=Source.SIMULATED)
    assert outcome.result.source is Source.SIMULATED


async def test_secrets_in_the_log_reach_neither_result_nor_evidence() -> None:
    """Redacted before anything is stored."""
    secret = b"hf_AAAABBBBCCCCDDDD1234"
    lines = b"args: --api-key topsecret1 token " + secret + b"\nthe last words " + secret + b"\n"
    outcome = await _run([running(), log(lines), later(1, ended(1))])
    kept = outcome.log + json.dumps(outcome.result.to_json()).encode()
    assert secret not in kept
    assert b"topsecret1" not in kept


@pytest.mark.parametrize("before", [270, 290, 299])
async def test_a_secret_that_the_last_line_is_cut_within_is_not_kept(before: int) -> None:
    """What is left of it would look like none."""
    line = b"INFO " + b"x" * (before - 5) + b"https://minio:topsecret1@minio.example.com/models is slow\n"
    outcome = await _run([running(), log(line), later(0.5, ended(1))])
    assert outcome.result.failure is not None
    assert "xxx" in outcome.result.failure.line
    assert "minio:" not in outcome.result.failure.line


@pytest.mark.parametrize("told", [[log(READY_LOG, gap=True)], [log(READY_LOG), log(b"", gap=True)]])
async def test_gaps_in_the_log_are_told(told: Script) -> None:
    """Lines that were lost may have been the evidence, the last ones too."""
    outcome = await _run([running(), *told, serve(FakeServer())])
    assert "the log has gaps" in outcome.result.flags


# Deleting on every path


@pytest.mark.parametrize(
    "script", [[], [running()], [running(), log(READY_LOG)]], ids=["queued", "starting", "probing"]
)
async def test_a_cancelled_point_is_deleted_and_not_recorded(script: Script) -> None:
    """Ctrl-C leaves nothing behind, and the point runs again."""
    of = point(timeouts=LIMITS)
    outcome = Outcome(FakeCluster({of.hash: script}), of)
    task = asyncio.create_task(_play(outcome))
    await asyncio.sleep(15)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outcome.happened == ["create", "delete"]
    assert not outcome.cluster.pods


async def test_a_pod_is_deleted_when_the_result_cannot_be_stored() -> None:
    """A full disk stops kprof, and still leaves no pod."""
    of = point(timeouts=LIMITS)
    cluster = FakeCluster({of.hash: _ready()})

    def record(_result: PointResult, _log: LogEvidence) -> None:
        raise OSError("disk full")

    async with PodWatch(cluster, "r") as watch:
        job = PointRun(cluster, watch, of, render_pod(of, "r"), Source.MEASURED, 0)
        with pytest.raises(OSError, match="disk full"):
            await job.run(lambda _pod: None, lambda _stage: None, record)
    assert not cluster.pods


async def test_a_pod_is_deleted_when_the_cluster_goes_away_under_the_probe() -> None:
    """An error that is kprof's own ends the point, and the pod is deleted all the same."""

    class Breaking(FakeServer):
        def answer(self, method: str, path: str, body: bytes | None) -> Any:
            raise ClusterError("access denied")

    of = point(timeouts=LIMITS)
    outcome = Outcome(FakeCluster({of.hash: _ready(Breaking())}), of)
    with pytest.raises(ClusterError):
        await _play(outcome)
    assert outcome.happened == ["create", "delete"]
    assert not outcome.cluster.pods
