"""A whole sweep on a scripted cluster: resumed, limited, interrupted, and never leaving a pod behind."""

import asyncio
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cluster.manifest import Simulation, render_pod
from orchestrator.cluster.port import POINT_LABEL, PodRejectedError, PodSnapshot
from orchestrator.errors import ClusterError, KprofError
from orchestrator.matrix.expand import LoadedMatrix
from orchestrator.matrix.point import Point
from orchestrator.store import RunRecord, Store, open_store
from orchestrator.sweep.run import Progress, Sweep
from orchestrator.sweep.schedule import Limits
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
)
from tests.fakes.matrix import group, load
from tests.fakes.results import document

pytestmark = pytest.mark.looptime
LIMITS = {"queueSeconds": 600, "startupSeconds": 1000, "stallSeconds": 200, "probeSeconds": 30}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return an empty store."""
    opened = open_store(str(tmp_path / "kprof.db"))
    yield opened
    opened.close()


def _matrix(*sizes: int) -> LoadedMatrix:
    return load(*(group(f"g{n}", arguments={"seed": n, "tp": size}) for n, size in enumerate(sizes)), timeouts=LIMITS)


def _good(seconds: float = 10) -> Script:
    return [later(1, running()), later(seconds, log(READY_LOG)), serve(FakeServer())]


def _bad() -> Script:
    return [running(), log(NO_ROOM_LOG), later(1, ended(1))]


def _cluster(matrix: LoadedMatrix, *scripts: Script | PodRejectedError, devices: int | None = 8) -> FakeCluster:
    return FakeCluster(dict(zip((p.hash for p in matrix.points), scripts, strict=True)), devices=devices)


def _sweep(cluster: FakeCluster, store: Store, matrix: LoadedMatrix, limits: Limits | None = None) -> Sweep:
    return Sweep(cluster, store, matrix, limits=limits or Limits())


async def _run(sweep: Sweep, matrix: LoadedMatrix, *, fresh: bool = False) -> RunRecord:
    run = await sweep.prepare(matrix.points, fresh=fresh)
    await sweep.run(run, matrix.points)
    return run


def _names(cluster: FakeCluster, *events: str) -> list[str]:
    return [name for event, name in cluster.events if event in events]


def _point_of(matrix: LoadedMatrix, pod: str) -> Point:
    (found,) = [p for p in matrix.points if p.hash[:10] in pod]
    return found


async def test_every_point_gets_its_result_and_nothing_is_left(store: Store) -> None:
    """Ready and failed points alike; the run is finished, every pod deleted, the run's owner closed."""
    matrix = _matrix(1, 2, 1)
    cluster = _cluster(matrix, _good(), _bad(), _good())
    run = await _run(_sweep(cluster, store, matrix), matrix)
    assert [(r.point.id, r.failure_kind) for r in store.results(run.id)] == [
        ("g0", None),
        ("g1", "kv.no_room"),
        ("g2", None),
    ]
    assert (store.run(run.id) or run).finished_at is not None
    assert not cluster.pods
    assert sorted(_names(cluster, "create")) == sorted(_names(cluster, "delete"))
    assert _names(cluster, "left") == []
    assert cluster.events[-1] == ("close", run.id)
    assert store.log(run.id, matrix.points[0].hash) == READY_LOG


async def test_results_are_on_disk_before_their_pods_are_deleted(store: Store) -> None:
    """A kill between the two loses nothing."""
    matrix = _matrix(1, 1)
    cluster = _cluster(matrix, _good(), _bad())
    seen: list[bool] = []

    class Watching(FakeCluster):
        async def delete(self, pod: PodSnapshot) -> None:
            latest = store.latest_run()
            assert latest is not None
            seen.append(pod.labels[POINT_LABEL] in {r.point.hash for r in store.results(latest.id)})
            await super().delete(pod)

    cluster.__class__ = Watching
    await _run(_sweep(cluster, store, matrix), matrix)
    assert seen == [True, True]


async def test_devices_are_never_overcommitted_and_the_longest_point_starts_first(store: Store) -> None:
    """Neither beyond what is free nor beyond what the user allows."""
    matrix = _matrix(1, 4, 2, 2, 1)
    cluster = _cluster(matrix, *[_good()] * 5, devices=4)
    await _run(_sweep(cluster, store, matrix), matrix)
    assert cluster.most_devices <= 4
    assert _point_of(matrix, _names(cluster, "create")[0]).id == "g1"

    again = _cluster(matrix, *[_good()] * 5, devices=None)
    await _run(_sweep(again, store, matrix, Limits(max_gpus=5)), matrix, fresh=True)
    assert again.most_devices <= 5


async def test_points_run_side_by_side(store: Store) -> None:
    """Four points of a hundred seconds take no four hundred; with one slot they do."""
    matrix = _matrix(1, 1, 1, 1)
    clock = asyncio.get_running_loop().time
    begin = clock()
    await _run(_sweep(_cluster(matrix, *[_good(100)] * 4), store, matrix), matrix)
    assert clock() - begin < 150
    begin = clock()
    await _run(_sweep(_cluster(matrix, *[_good(100)] * 4), store, matrix, Limits(max_parallel=1)), matrix, fresh=True)
    assert clock() - begin > 400


async def test_the_same_command_runs_no_finished_point_again(store: Store) -> None:
    """A finished run creates nothing, and does not even ask the cluster."""
    matrix = _matrix(1, 1)
    first = await _run(_sweep(_cluster(matrix, _good(), _bad()), store, matrix), matrix)
    quiet = FakeCluster({})
    second = await _run(_sweep(quiet, store, matrix), matrix)
    assert second.id == first.id
    assert quiet.events == []


async def test_fresh_starts_a_new_run(store: Store) -> None:
    """The old results stay."""
    matrix = _matrix(1)
    first = await _run(_sweep(_cluster(matrix, _good()), store, matrix), matrix)
    second = await _run(_sweep(_cluster(matrix, _good()), store, matrix), matrix, fresh=True)
    assert second.number == first.number + 1
    assert len(store.results(first.id)) == len(store.results(second.id)) == 1


async def test_points_that_the_cluster_failed_are_tried_again(store: Store) -> None:
    """A quota says nothing about the configuration; a failure of the engine does."""
    matrix = _matrix(1, 1)
    refused = PodRejectedError("pod.quota", "exceeded quota")
    run = await _run(_sweep(_cluster(matrix, refused, _bad()), store, matrix), matrix)
    assert [r.failure_kind for r in store.results(run.id)] == ["pod.quota", "kv.no_room"]
    assert (store.run(run.id) or run).finished_at is None

    again = FakeCluster({matrix.points[0].hash: _good()})
    await _run(_sweep(again, store, matrix), matrix)
    assert [(r.failure_kind, r.attempt) for r in store.results(run.id)] == [(None, 1), ("kv.no_room", 0)]
    assert (store.run(run.id) or run).finished_at is not None
    assert len(set(_names(again, "create"))) == 1
    assert _names(again, "create")[0].endswith("-a1")


async def test_a_simulated_run_is_never_resumed_as_a_measured_one(store: Store) -> None:
    """Nor the other way round."""
    matrix = _matrix(1)
    simulated = Sweep(_cluster(matrix, _good()), store, matrix, limits=Limits(), simulation=Simulation())
    measured = _sweep(_cluster(matrix, _good()), store, matrix)
    one, two = await _run(simulated, matrix), await _run(measured, matrix)
    assert (one.source, two.source) == ("SIMULATED", "measured")
    assert one.id != two.id


async def test_a_simulator_in_a_measured_sweep_is_recorded_as_simulated(store: Store) -> None:
    """The log's own line decides."""
    matrix = _matrix(1)
    cluster = _cluster(matrix, [running(), log(SIMULATOR_LOG + READY_LOG), serve(FakeServer())])
    run = await _run(_sweep(cluster, store, matrix), matrix)
    assert [r.source for r in store.results(run.id)] == ["SIMULATED"]


# After a kill


async def test_a_pod_of_the_killed_kprof_is_adopted(store: Store) -> None:
    """The same attempt goes on: it is not created a second time, and has one result."""
    matrix = _matrix(1, 1)
    cluster = _cluster(matrix, _good(), _good())
    sweep = _sweep(cluster, store, matrix)
    run = await sweep.prepare(matrix.points, fresh=False)
    of = matrix.points[1]
    manifest = render_pod(of, run.id, 0)
    store.intend(run.id, of.hash, manifest.name, 0)
    cluster.add(manifest)
    await asyncio.sleep(30)
    await sweep.run(run, matrix.points)
    assert _names(cluster, "adopt") == [manifest.name]
    assert manifest.name not in _names(cluster, "create")
    assert [(r.attempt, r.failure_kind) for r in store.results(run.id)] == [(0, None), (0, None)]
    assert store.log(run.id, of.hash) == READY_LOG
    assert not cluster.pods


async def test_an_adopted_pod_goes_before_new_ones_even_when_nothing_is_free(store: Store) -> None:
    """It holds its devices already; waiting for them would never end."""
    matrix = _matrix(4, 4)
    cluster = _cluster(matrix, _good(), _good(), devices=4)
    sweep = _sweep(cluster, store, matrix)
    run = await sweep.prepare(matrix.points, fresh=False)
    cluster.add(render_pod(matrix.points[1], run.id, 0))
    async with asyncio.timeout(300):
        await sweep.run(run, matrix.points)
    assert cluster.most_devices == 4
    assert len(store.results(run.id)) == 2


async def test_pods_that_ended_meanwhile_are_read_whatever_the_limits(store: Store) -> None:
    """They hold no devices, and their logs are results: they are read one after the other, and none is made again."""
    matrix = _matrix(1, 1, 1)
    cluster = _cluster(matrix, _bad(), _good(), _bad())
    sweep = _sweep(cluster, store, matrix, Limits(max_gpus=1, max_parallel=1))
    run = await sweep.prepare(matrix.points, fresh=False)
    for point in matrix.points:
        cluster.add(render_pod(point, run.id, 0))
    await asyncio.sleep(30)
    await sweep.run(run, matrix.points)
    assert _names(cluster, "create") == []
    assert len(_names(cluster, "adopt")) == 3
    assert [r.failure_kind for r in store.results(run.id)] == ["kv.no_room", None, "kv.no_room"]
    assert all(r.document["adopted"] for r in store.results(run.id))


async def test_pods_of_points_that_have_their_result_are_removed(store: Store) -> None:
    """Killed after recording and before deleting: the pod is stale, its point is done."""
    matrix = _matrix(1, 1)
    first = _cluster(matrix, _bad(), PodRejectedError("pod.quota", "no"))
    run = await _run(_sweep(first, store, matrix), matrix)
    stale = render_pod(matrix.points[0], run.id, 0)
    cluster = _cluster(matrix, _good(), _good())
    cluster.add(stale)
    await _run(_sweep(cluster, store, matrix), matrix)
    assert stale.name in _names(cluster, "delete")
    assert stale.name not in _names(cluster, "adopt", "create")
    assert not cluster.pods
    assert [r.failure_kind for r in store.results(run.id)] == ["kv.no_room", None]


async def test_the_pod_of_the_last_recorded_point_does_not_stay(store: Store) -> None:
    """Killed between the last record and its pod's deletion: nothing is to do, and the same command cleans up."""
    matrix = _matrix(1)
    (of,) = matrix.points
    cluster = _cluster(matrix, _good())
    sweep = _sweep(cluster, store, matrix)
    run = await sweep.prepare(matrix.points, fresh=False)
    manifest = render_pod(of, run.id, 0)
    store.intend(run.id, of.hash, manifest.name, 0)
    store.record(run.id, document(of), zlib.compress(b""), 0, truncated=False)
    cluster.add(manifest)
    await sweep.run(run, matrix.points)
    assert not cluster.pods
    assert manifest.name not in _names(cluster, "create", "adopt")
    assert (store.run(run.id) or run).finished_at is not None


@pytest.mark.parametrize("killed", [True, False])
async def test_of_other_runs_only_what_a_killed_kprof_left_is_cleared(store: Store, killed: bool) -> None:
    """A kprof that ended in order may have left a pod on purpose, whose result it could not write."""
    matrix = _matrix(1)
    cluster = _cluster(matrix, _good())
    cluster.open_runs.add("other")
    cluster.killed = {"other"} if killed else set()
    await _run(_sweep(cluster, store, matrix), matrix)
    assert (("close", "other") in cluster.events) is killed


# Interrupts and trouble


async def test_an_interrupted_sweep_leaves_nothing_and_resumes(store: Store) -> None:
    """What was recorded stays; what ran is deleted and runs again as the same attempt or a new one."""
    matrix = _matrix(1, 1)
    cluster = _cluster(matrix, _good(5), _good(500))
    sweep = _sweep(cluster, store, matrix)
    run = await sweep.prepare(matrix.points, fresh=False)
    task = asyncio.create_task(sweep.run(run, matrix.points))
    await asyncio.sleep(60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not cluster.pods
    assert cluster.events[-1] == ("close", run.id)
    assert [r.point.id for r in store.results(run.id)] == ["g0"]

    again = FakeCluster({matrix.points[1].hash: _good()})
    assert (await _run(_sweep(again, store, matrix), matrix)).id == run.id
    assert [r.point.id for r in store.results(run.id)] == ["g0", "g1"]


async def test_three_alike_failures_of_the_cluster_stop_the_sweep(store: Store) -> None:
    """Every further point would fail alike; exit code 4 says that the cluster is to be mended."""
    matrix = _matrix(*[1] * 6)
    refused = PodRejectedError("pod.quota", "exceeded quota: team")
    cluster = _cluster(matrix, *[refused] * 6)
    with pytest.raises(ClusterError, match="exceeded quota: team") as caught:
        await _run(_sweep(cluster, store, matrix, Limits(max_parallel=1)), matrix)
    assert caught.value.exit_code == 4
    assert caught.value.remedy
    assert len(_names(cluster, "reject")) == 3
    assert cluster.events[-1][0] == "close"


async def test_failures_that_differ_do_not_stop_the_sweep(store: Store) -> None:
    """Nor do failures of the engine, however many."""
    matrix = _matrix(*[1] * 5)
    quota, admission = PodRejectedError("pod.quota", "q"), PodRejectedError("pod.admission", "a")
    cluster = _cluster(matrix, quota, quota, admission, quota, quota)
    run = await _run(_sweep(cluster, store, matrix, Limits(max_parallel=1)), matrix)
    assert len(store.results(run.id)) == 5
    bad = _cluster(matrix, *[_bad()] * 5)
    run = await _run(_sweep(bad, store, matrix, Limits(max_parallel=1)), matrix, fresh=True)
    assert len(store.results(run.id)) == 5


async def test_a_cluster_that_cannot_be_used_is_found_before_anything_is_created(store: Store) -> None:
    """Wrong context, no permission, missing secret: one error, no pod, no owner."""
    matrix = _matrix(1, 1)
    cluster = _cluster(matrix, _good(), _good())
    cluster.check_error = ClusterError('secrets "x" not found')
    with pytest.raises(ClusterError, match="not found"):
        await _run(_sweep(cluster, store, matrix), matrix)
    assert {event for event, _ in cluster.events} == {"check"}
    assert store.latest_run() is None


async def test_a_resumed_run_is_checked_again(store: Store) -> None:
    """The cluster may have lost its secret between two commands."""
    matrix = _matrix(1, 1)
    first = _cluster(matrix, _good(), PodRejectedError("pod.quota", "no"))
    await _run(_sweep(first, store, matrix), matrix)
    again = _cluster(matrix, _good(), _good())
    again.check_error = ClusterError("not found")
    with pytest.raises(ClusterError):
        await _run(_sweep(again, store, matrix), matrix)
    assert {event for event, _ in again.events} == {"check"}


async def test_a_result_that_cannot_be_written_is_not_lost(store: Store) -> None:
    """Its pod stays and is read again by the same command; the pods of other points do not stay."""
    matrix = _matrix(1, 1)
    cluster = _cluster(matrix, _good(5), _good(500))
    real = store.record

    def broken(*arguments: object, **fields: object) -> None:
        raise ClusterError("the disk is full")

    store.record = broken  # type: ignore[method-assign]
    with pytest.raises(KprofError, match="the disk is full"):
        await _run(_sweep(cluster, store, matrix), matrix)
    store.record = real  # type: ignore[method-assign]
    assert [pod.split("-")[2] for pod in cluster.pods] == [matrix.points[0].hash[:10]]


async def test_a_point_that_max_gpus_never_lets_start_is_refused(store: Store) -> None:
    """Eight devices under `--max-gpus 4` would wait for ever: the command says so."""
    matrix = _matrix(8, 1)
    cluster = _cluster(matrix, _good(), _good())
    with pytest.raises(KprofError, match="g0"):
        async with asyncio.timeout(5000):
            await _run(_sweep(cluster, store, matrix, Limits(max_gpus=4)), matrix)


async def test_a_point_larger_than_the_cluster_does_not_hold_the_sweep_for_ever(store: Store) -> None:
    """After its queueing time it is unschedulable, created or not; the others have their results."""
    matrix = _matrix(8, 1)
    cluster = _cluster(matrix, [], _good(), devices=4)
    async with asyncio.timeout(5000):
        run = await _run(_sweep(cluster, store, matrix), matrix)
    assert [r.failure_kind for r in store.results(run.id)] == ["pod.unschedulable", None]


async def test_progress_ends_with_the_result_of_every_point(store: Store) -> None:
    """The live view learns how each point ended."""
    matrix = _matrix(1, 1)
    seen: list[Progress] = []
    sweep = Sweep(_cluster(matrix, _good(), _bad()), store, matrix, limits=Limits(), observe=seen.append)
    await _run(sweep, matrix)
    done = {p.point.id: p.result for p in seen if p.stage == "done"}
    assert set(done) == {"g0", "g1"}
    assert all(result is not None for result in done.values())


async def test_repeat_measures_anew_only_what_was_finished(store: Store) -> None:
    """A nightly sweep: what was interrupted goes on, what has all its results begins again."""
    matrix = _matrix(1, 1)
    first = await _run(_sweep(_cluster(matrix, _good(), _bad()), store, matrix), matrix)
    again = _sweep(_cluster(matrix, _good(), _good()), store, matrix)
    second = await again.prepare(matrix.points, fresh=False, repeat=True)
    assert second.id != first.id
    await again.run(second, matrix.points[:1])
    resumed = await again.prepare(matrix.points, fresh=False, repeat=True)
    assert resumed.id == second.id
    assert len(store.results(first.id)) == 2


async def test_repeat_does_not_wait_for_ever_for_points_the_cluster_refuses(store: Store) -> None:
    """Trouble of the cluster is a result of that night: the next night tries all points again."""
    matrix = _matrix(1)
    cluster = _cluster(matrix, [running(), later(1, gone())])
    first = await _run(_sweep(cluster, store, matrix), matrix)
    (result,) = store.results(first.id)
    assert (result.failure_kind or "").startswith("pod.")
    second = await _sweep(_cluster(matrix, _good()), store, matrix).prepare(matrix.points, fresh=False, repeat=True)
    assert second.id != first.id


async def test_a_store_that_is_busy_when_all_is_done(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another kprof writes into the same store: the end of the run is written a little later."""
    finish, busy = store.finish_run, [KprofError("database is locked")]

    def finish_run(run_id: str) -> None:
        if busy:
            raise busy.pop()
        finish(run_id)

    monkeypatch.setattr(store, "finish_run", finish_run)
    matrix = _matrix(1)
    run = await _run(_sweep(_cluster(matrix, _good()), store, matrix), matrix)
    ended = store.run(run.id)
    assert ended is not None
    assert ended.finished_at is not None
