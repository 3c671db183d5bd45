"""Pods through the port: created, adopted, watched, deleted; the same for both adapters."""

import dataclasses

import pytest

from orchestrator.cluster.port import (
    ATTEMPT_LABEL,
    POINT_LABEL,
    RUN_LABEL,
    SPEC_LABEL,
    Phase,
    PodRejectedError,
    PodSnapshot,
)
from tests.contract.subject import (
    GPU,
    START_SECONDS,
    Subject,
    following,
    printing,
    serving,
    until_finished,
    until_gone,
    until_phase,
    until_started,
)
from tests.e2e.waiting import eventually

# The first process of a container has no default handler for SIGTERM.
WAIT_FOR_END = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nsignal.pause()"


async def test_a_pod_goes_from_pending_to_running_and_carries_name_and_labels(subject: Subject) -> None:
    """The snapshot of a new pod says what was asked for, and `started` becomes true once the container runs."""
    manifest = serving(subject.run)
    made = await subject.vllm.create(manifest)
    assert made.name == manifest.name
    assert made.uid
    assert made.phase in {Phase.PENDING, Phase.RUNNING}
    assert not made.finished
    for label in (RUN_LABEL, POINT_LABEL, ATTEMPT_LABEL, SPEC_LABEL):
        assert made.labels[label] == manifest.labels[label]
    now = await until_started(subject.vllm, made)
    assert (now.uid, now.name, dict(now.labels)) == (made.uid, made.name, dict(made.labels))
    assert now.phase is Phase.RUNNING
    assert now.container is not None
    assert now.container.state == "running"
    assert now.node
    assert not now.finished


async def test_create_again_adopts_the_pod_that_is_there(subject: Subject) -> None:
    """Creating a pod of the same name twice, as a killed kprof does, gives one pod; also while it runs."""
    manifest = printing(subject.run, WAIT_FOR_END)
    first = await subject.plain.create(manifest)
    assert (await subject.plain.create(manifest)).uid == first.uid
    await until_started(subject.plain, first)
    assert (await subject.plain.create(manifest)).uid == first.uid


async def test_create_adopts_a_pod_that_ended_while_nobody_looked(subject: Subject) -> None:
    """The end of a pod is not lost with the kprof that started it."""
    manifest = printing(subject.run, "raise SystemExit(7)")
    first = await subject.plain.create(manifest)
    await until_finished(subject.plain, first)
    again = await subject.plain.create(manifest)
    assert again.uid == first.uid
    assert again.finished
    assert again.container is not None
    assert again.container.exit_code == 7


async def test_create_replaces_a_pod_whose_limits_have_changed(subject: Subject) -> None:
    """What a killed kprof left under other limits is ended, and the same command goes on."""
    first = await subject.vllm.create(serving(subject.run, speed=500))
    await until_started(subject.vllm, first)
    second = await subject.vllm.create(serving(subject.run, speed=400))
    assert (second.name, second.uid == first.uid) == (first.name, False)
    started = await until_started(subject.vllm, second)
    assert (started.uid, started.finished) == (second.uid, False)


async def test_get_of_a_pod_that_never_was_is_none(subject: Subject) -> None:
    """No pod is no error."""
    assert await subject.vllm.get("kp-never-was-a0") is None


async def test_the_snapshot_of_a_failing_start_has_its_exit_code(subject: Subject) -> None:
    """A server that cannot start ends its container, and the snapshot says how."""
    manifest = serving(subject.run, max_model_len=99_999_999)
    made = await subject.vllm.create(manifest)
    ended = await until_phase(subject.vllm, made, Phase.FAILED)
    assert ended.finished
    assert ended.started
    assert ended.container is not None
    assert ended.container.state == "terminated"
    assert ended.container.exit_code == 1


async def test_a_container_that_ends_well_succeeded_with_0(subject: Subject) -> None:
    """Exit code 0 is a number, not None."""
    made = await subject.plain.create(printing(subject.run, "print('bye')"))
    ended = await until_phase(subject.plain, made, Phase.SUCCEEDED)
    assert ended.finished
    assert ended.container is not None
    assert ended.container.exit_code == 0


async def test_changes_list_first_and_then_tell_everything(subject: Subject) -> None:
    """The first change is a listing with what exists; creation, start and deletion follow."""
    early = await subject.plain.create(printing(subject.run, WAIT_FOR_END, attempt=0))
    async with following(subject.plain, subject.run) as follower:
        first = await follower.until("there is a listing", lambda change: change.listing is not None)
        assert follower.changes[0] is first
        assert [pod.uid for pod in first.listing or ()] == [early.uid]

        late = await subject.plain.create(printing(subject.run, WAIT_FOR_END, attempt=1))

        def tells_of(uid: str, *, deleted: bool = False, started: bool = False) -> object:
            return lambda change: (
                change.pod is not None
                and change.pod.uid == uid
                and change.deleted is deleted
                and (change.pod.started or not started)
            )

        await follower.until("the new pod appears", tells_of(late.uid))
        await follower.until("it is seen started", tells_of(late.uid, started=True))
        await subject.plain.delete(late)
        await follower.until("its deletion is told", tells_of(late.uid, deleted=True))
        told = [change.pod.uid for change in follower.changes if change.pod is not None and change.deleted]
        assert told == [late.uid]


async def test_changes_of_another_run_are_not_told(subject: Subject) -> None:
    """Two sweeps in one place do not see each other's pods."""
    async with following(subject.plain, "0other00") as follower:
        await follower.until("there is a listing", lambda change: change.listing is not None)
        made = await subject.plain.create(printing(subject.run, "print('bye')"))
        await until_finished(subject.plain, made)
        assert [change for change in follower.changes if change.pod is not None or change.listing] == []


async def test_delete_waits_until_the_pod_is_gone_and_may_be_repeated(subject: Subject) -> None:
    """After delete there is nothing under that name; deleting again is no error."""
    made = await subject.vllm.create(serving(subject.run))
    running = await until_started(subject.vllm, made)
    await subject.vllm.delete(running)
    assert await subject.vllm.get(made.name) is None
    await subject.vllm.delete(running)
    await subject.vllm.delete(made)


async def test_delete_with_a_wrong_uid_leaves_the_pod_alone(subject: Subject) -> None:
    """A pod of the same name that somebody made later is not this one."""
    made = await subject.plain.create(printing(subject.run, WAIT_FOR_END))
    stranger = dataclasses.replace(made, uid="00000000-0000-4000-8000-000000000000")
    await subject.plain.delete(stranger)
    now = await subject.plain.get(made.name)
    assert now is not None
    assert now.uid == made.uid
    assert not now.deleting


async def test_a_new_pod_may_take_the_name_of_a_deleted_one(subject: Subject) -> None:
    """An interrupted point is run again under the same name, as another pod."""
    manifest = printing(subject.run, WAIT_FOR_END)
    first = await subject.plain.create(manifest)
    await subject.plain.delete(first)
    second = await subject.plain.create(manifest)
    assert second.uid != first.uid
    await until_started(subject.plain, second)


async def test_closing_the_run_removes_what_was_left(subject: Subject) -> None:
    """Closing takes every pod of the run along, running or ended; closing twice is no error."""
    running = await subject.plain.create(printing(subject.run, WAIT_FOR_END, attempt=0))
    ended = await subject.plain.create(printing(subject.run, "print('bye')", attempt=1))
    await until_started(subject.plain, running)
    await until_finished(subject.plain, ended)
    await subject.plain.close_run(subject.run)
    await until_gone(subject.plain, running)
    await until_gone(subject.plain, ended)
    await subject.plain.close_run(subject.run)


async def test_never_more_devices_than_there_are(subject: Subject) -> None:
    """What a pod holds is no longer free; a pod that asks for more than is left does not run."""
    total = await subject.plain.free_devices(GPU)
    assert total is not None
    assert total >= 3
    first = await subject.plain.create(printing(subject.run, WAIT_FOR_END, gpus=2, attempt=0))
    assert await subject.plain.free_devices(GPU) == total - 2
    await until_started(subject.plain, first)
    assert await subject.plain.free_devices(GPU) == total - 2

    greedy = printing(subject.run, WAIT_FOR_END, gpus=total - 1, attempt=1)
    if subject.plain.name == "local":
        # This machine has no queue: a kprof that asks for too much is told at once.
        with pytest.raises(PodRejectedError) as refused:
            await subject.plain.create(greedy)
        assert refused.value.kind == "pod.unschedulable"
    else:
        await _stays_out(subject, await subject.plain.create(greedy))
    await subject.plain.delete(first)

    async def all_free() -> bool:
        return await subject.plain.free_devices(GPU) == total

    await eventually("every device is free again", all_free)


async def _stays_out(subject: Subject, pod: PodSnapshot) -> None:
    async def refused() -> PodSnapshot | None:
        now = await subject.plain.get(pod.name)
        return now if now is not None and now.unschedulable else None

    waiting = await eventually("the scheduler says why the pod waits", refused, seconds=START_SECONDS)
    assert GPU in (waiting.unschedulable or "")
    assert not waiting.started
    await subject.plain.delete(waiting)


async def test_devices_of_an_ended_pod_are_free(subject: Subject) -> None:
    """A pod that ended holds nothing, although it still exists."""
    total = await subject.plain.free_devices(GPU)
    made = await subject.plain.create(printing(subject.run, "print('bye')"))
    await until_finished(subject.plain, made)

    async def all_free() -> bool:
        return await subject.plain.free_devices(GPU) == total

    await eventually("its device is free", all_free)
    assert await subject.plain.get(made.name) is not None


@pytest.mark.parametrize("resource", [None, "example.com/none"])
async def test_free_devices_of_what_nobody_has(subject: Subject, resource: str | None) -> None:
    """No resource: no number. A resource that the cluster does not know: none are free on Kubernetes."""
    free = await subject.vllm.free_devices(resource)
    local = subject.vllm.name == "local"
    if resource is None:
        assert free == (1 if local else None)  # on one machine a point without devices takes the whole of it
    else:
        assert free == 0 or local
