"""Containers that do not start: no image, no Secret, no such command."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.errors import ClusterError
from orchestrator.sweep.schedule import Limits
from tests.fakes.cluster import SIMULATOR_LOG, FakeServer
from tests.faults.kubelet import PodPlay
from tests.faults.scripts import be_ready, mending, starting
from tests.faults.sweeping import Bench, on_bench

PULL = 'Back-off pulling image "vllm/vllm-openai:v0.11.0"'


def _queued_seconds(bench: Bench) -> float:
    (result,) = bench.results()
    return float(result.document["seconds"]["queued"])


@pytest.mark.fault(16, "W")
def test_fault_16_an_image_pull_that_mends_itself(tmp_path: Path) -> None:
    """Gives a registry that does not answer 5 minutes: an image that comes after 4 costs nothing."""
    script = mending(lambda pod: pod.wait("ImagePullBackOff", PULL), 240)

    async def work(bench: Bench) -> None:
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        assert bench.before_the_log() > 200

    on_bench(tmp_path, work, script=script, factor=100)


@pytest.mark.fault(16, "P(pod.image)")
@pytest.mark.parametrize(
    ("reason", "least", "most"),
    [("ErrImagePull", 300, 400), ("InvalidImageName", 0, 60), ("ErrImageNeverPull", 0, 60)],
)
def test_fault_16_an_image_that_cannot_be_pulled(tmp_path: Path, reason: str, least: int, most: int) -> None:
    """Records `pod.image` after 5 minutes, and at once where no registry could help."""

    async def work(bench: Bench) -> None:
        await bench.sweep()
        assert bench.failure() == ("pod.image", f"{reason}: {PULL}")
        assert least <= _queued_seconds(bench) <= most

    on_bench(tmp_path, work, script=starting(lambda pod: pod.wait(reason, PULL)), factor=100)


@pytest.mark.fault(16, "A")
def test_fault_16_an_image_that_no_point_can_pull(tmp_path: Path) -> None:
    """Ends the sweep when the first points all fail so, and leaves the others for the next command."""

    async def work(bench: Bench) -> None:
        with pytest.raises(ClusterError, match=r"3 points failed alike: pod\.image"):
            await bench.sweep(Limits(max_parallel=2))
        assert 3 <= len(bench.results()) <= 6
        assert bench.server.left() == []

    script = starting(lambda pod: pod.wait("InvalidImageName", PULL))
    on_bench(tmp_path, work, script=script, points=12)


@pytest.mark.fault(17, "A")
def test_fault_17_a_secret_that_is_not_there(tmp_path: Path) -> None:
    """Refuses to begin, with the command that creates the Secret."""

    async def work(bench: Bench) -> None:
        with pytest.raises(ClusterError, match="secret hf not found") as caught:
            await bench.sweep()
        assert caught.value.remedy == "kubectl -n default create secret generic hf --from-file=token=FILE"
        assert bench.server.left() == []
        assert bench.server.asked("POST", "/pods") == []

    on_bench(tmp_path, work, huggingFaceToken={"secretName": "hf", "key": "token"})


@pytest.mark.fault(17, "P(pod.config)")
def test_fault_17_a_key_that_is_not_in_the_secret(tmp_path: Path) -> None:
    """Gives a pod that lacks a Secret or a key of it a minute, then records `pod.config` with the kubelet's words."""
    words = "couldn't find key HF_TOKEN in Secret default/hf"

    async def work(bench: Bench) -> None:
        await bench.sweep()
        assert bench.failure() == ("pod.config", f"CreateContainerConfigError: {words}")
        assert 60 <= _queued_seconds(bench) <= 120

    on_bench(tmp_path, work, script=starting(lambda pod: pod.wait("CreateContainerConfigError", words)), factor=100)


@pytest.mark.fault(18, "P(pod.config)")
@pytest.mark.parametrize("reason", ["CreateContainerError", "RunContainerError", "StartError"])
def test_fault_18_a_container_that_cannot_be_started(tmp_path: Path, reason: str) -> None:
    """Records `pod.config` with the runtime's words."""
    words = 'exec: "vllm": executable file not found in $PATH'

    async def script(pod: PodPlay) -> None:
        pod.schedule()
        if reason == "StartError":
            pod.exit(128, reason, words)
        else:
            pod.wait(reason, words)
        await pod.forever()

    async def work(bench: Bench) -> None:
        await bench.sweep()
        assert bench.failure() == ("pod.config", f"{reason}: {words}")

    on_bench(tmp_path, work, script=script, factor=100)


async def _check_void(bench: Bench) -> None:
    await bench.sweep()
    kind, line = bench.failure()
    assert kind == "interrupted"
    assert "restarted (1 times)" in line
    assert bench.server.left() == []
    assert len(bench.server.kubelet.history) == 1


@pytest.mark.fault(29, "P(interrupted)")
def test_fault_29_a_container_is_restarted_while_it_loads(tmp_path: Path) -> None:
    """Measures nothing on a container that is not the one it began with: the point fails as interrupted."""

    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        await asyncio.sleep(5)
        pod.restart()
        await asyncio.sleep(5)
        be_ready(pod)
        await pod.forever()

    on_bench(tmp_path, _check_void, script=script)


@pytest.mark.fault(29, "P(interrupted)")
def test_fault_29_a_container_is_restarted_while_it_is_probed(tmp_path: Path) -> None:
    """Takes figures for void that may be those of two containers: the point fails as interrupted."""
    real = FakeServer()

    async def script(pod: PodPlay) -> None:
        def http(method: str, asked: str, body: bytes) -> tuple[int, AsyncIterator[bytes]]:
            if asked == "/v1/models":
                pod.restart()
            return real.answer(method, asked, body)

        pod.run()
        be_ready(pod)
        pod.http = http
        await pod.forever()

    on_bench(tmp_path, _check_void, script=script)
