"""What only the local adapter must hold: devices by number, and pods whose parents died."""

import asyncio
import dataclasses
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cluster.local import LocalCluster
from orchestrator.cluster.port import POINT_LABEL, SPEC_LABEL, PodRejectedError
from tests.contract.subject import printing, read_all, until_finished, until_started
from tests.e2e import local_pods
from tests.e2e.waiting import eventually

SHOW_DEVICES = "import os, time\nprint(os.environ['CUDA_VISIBLE_DEVICES'], flush=True)\ntime.sleep({seconds})"


@pytest.fixture
def cluster(tmp_path: Path) -> LocalCluster:
    """Return a local cluster of four devices that runs Python scripts."""
    return LocalCluster((sys.executable,), devices=4, state=tmp_path / "state")


async def test_two_pods_get_different_devices(cluster: LocalCluster) -> None:
    """Every device is given to one pod at a time, and the one pod too many is refused."""
    run = secrets.token_hex(4)
    held: list[str] = []
    for attempt in range(2):
        pod = await cluster.create(printing(run, SHOW_DEVICES.format(seconds=600), gpus=2, attempt=attempt))
        await until_started(cluster, pod)

        async def shown(name: str = pod.name) -> str:
            return (cluster._state.pods / name / "log").read_text().strip()

        held += (await eventually("the pod shows its devices", shown)).split(",")
    assert sorted(held) == ["0", "1", "2", "3"]
    with pytest.raises(PodRejectedError):
        await cluster.create(printing(run, "pass", gpus=1, attempt=2))
    await cluster.close_run(run)
    assert await cluster.free_devices("nvidia.com/gpu") == 4


async def test_a_line_that_grows_is_progress(cluster: LocalCluster) -> None:
    """A progress bar without line feeds shows that the process goes on, long before its line is whole."""
    run = secrets.token_hex(4)
    bar = "import time\nfor part in range(6000):\n    print('#', end='', flush=True)\n    time.sleep(0.1)"
    pod = await cluster.create(printing(run, bar))
    await until_started(cluster, pod)
    async with asyncio.timeout(20):
        async for chunk in cluster.logs(pod, lambda: False):
            assert chunk.data == b""
            break
    await cluster.close_run(run)


async def test_a_pod_survives_the_kprof_that_started_it(cluster: LocalCluster, tmp_path: Path) -> None:
    """Another adapter on the same folder adopts the pod, reads its whole log and deletes it."""
    run = secrets.token_hex(4)
    manifest = printing(run, "import time\nprint('hello', flush=True)\ntime.sleep(1)\nprint('bye')")
    first = await cluster.create(manifest)
    heir = LocalCluster((sys.executable,), devices=4, state=tmp_path / "state")
    adopted = await heir.create(manifest)
    assert adopted.uid == first.uid
    assert (await read_all(heir, adopted)).data == b"hello\nbye\n"
    await heir.delete(adopted)
    assert local_pods.pods(tmp_path / "state") == []
    assert local_pods.lasting_processes(tmp_path / "state") == []


async def test_a_pod_with_other_limits_ends_before_its_devices_are_given_on(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """Its process would hold them for ever otherwise, and the new one would find none free."""
    manifest = printing(secrets.token_hex(4), "import time\ntime.sleep(600)", gpus=4)
    await until_started(cluster, await cluster.create(manifest))
    old = set(local_pods.processes(tmp_path / "state"))
    changed = dataclasses.replace(manifest, labels={**manifest.labels, SPEC_LABEL: "changed"})
    heir = LocalCluster((sys.executable,), devices=4, state=tmp_path / "state")
    pod = await until_started(heir, await heir.create(changed))
    assert not pod.finished
    assert await heir.free_devices("nvidia.com/gpu") == 0

    async def replaced() -> bool:
        return len(local_pods.processes(tmp_path / "state")) == len(old)

    await eventually("only the new processes are there", replaced, seconds=10)
    await heir.delete(pod)
    assert local_pods.lasting_processes(tmp_path / "state") == []


async def test_a_name_that_another_point_has_is_left_to_it(cluster: LocalCluster, tmp_path: Path) -> None:
    """Nothing of it is touched; the next attempt has another name."""
    manifest = printing(secrets.token_hex(4), "import time\ntime.sleep(600)")
    first = await until_started(cluster, await cluster.create(manifest))
    stranger = dataclasses.replace(manifest, labels={**manifest.labels, POINT_LABEL: "another"})
    with pytest.raises(PodRejectedError, match="is taken"):
        await cluster.create(stranger)
    assert await cluster.get(manifest.name) == first
    await cluster.delete(first)


async def test_a_pod_that_is_being_deleted_is_not_taken_over(cluster: LocalCluster, tmp_path: Path) -> None:
    """kill -9 while it was being deleted: it is deleted to the end, and another one made."""
    manifest = printing(secrets.token_hex(4), "import time\ntime.sleep(600)")
    first = await until_started(cluster, await cluster.create(manifest))
    (tmp_path / "state" / "pods" / first.name / "deleting").touch()
    second = await cluster.create(manifest)
    assert (second.uid == first.uid, second.deleting) == (False, False)
    await cluster.delete(second)


async def test_a_pod_whose_shim_is_killed_ended_with_137_and_leaves_no_process(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """As on a node that loses a container: the pod is over, and nothing of it goes on."""
    run = secrets.token_hex(4)
    pod = await cluster.create(printing(run, "import time\ntime.sleep(600)"))
    await until_started(cluster, pod)
    known = cluster._state.read(cluster._state.pods / pod.name)
    assert known is not None
    assert known.shim is not None
    os.kill(known.shim, signal.SIGKILL)
    ended = await until_finished(cluster, pod)
    assert ended.container is not None
    assert ended.container.exit_code == 137

    async def quiet() -> bool:
        return not local_pods.processes(tmp_path / "state")

    await eventually("no process is left", quiet, seconds=10)
    await cluster.delete(pod)


async def test_a_pod_that_a_killed_kprof_had_only_written_down_is_started(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 between the pod's file and its first process: the same command runs the pod, it did not fail."""
    run = secrets.token_hex(4)
    manifest = printing(run, "print('hello')")

    def killed(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt  # nothing after this line happens, as after a kill

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", killed)
        with pytest.raises(KeyboardInterrupt):
            await cluster.create(manifest)
    pod = await cluster.create(manifest)
    ended = await until_finished(cluster, pod)
    assert ended.container is not None
    assert (ended.container.exit_code, ended.started) == (0, True)
    assert (await read_all(cluster, ended)).data == b"hello\n"
    await cluster.delete(ended)


ENGINE = "import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)\n"
SLEEPS = "import time\ntime.sleep(600)"


async def test_the_workers_of_a_pod_whose_shim_is_killed_are_ended(cluster: LocalCluster, tmp_path: Path) -> None:
    """An engine core in a session of its own holds the device: it is not left alive when the pod is deleted."""
    run = secrets.token_hex(4)
    pod = await cluster.create(printing(run, ENGINE.format(child=SLEEPS) + SLEEPS))
    await until_started(cluster, pod)

    async def both() -> bool:
        return len([words for words in local_pods.processes(tmp_path / "state") if "time.sleep" in words]) >= 2

    await eventually("the engine and its worker run", both)
    known = cluster._state.read(cluster._state.pods / pod.name)
    assert known is not None
    assert known.shim is not None
    os.kill(known.shim, signal.SIGKILL)
    await cluster.delete(await until_finished(cluster, pod))

    async def quiet() -> bool:
        return not local_pods.processes(tmp_path / "state")

    await eventually("no process is left", quiet, seconds=10)
