"""A server that came up and then does not do what it should; clocks that differ."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.cluster import READY_LOG, SIMULATOR_LOG, FakeServer
from tests.faults.faults import refusal
from tests.faults.kubelet import Http, PodPlay, Script
from tests.faults.sweeping import Bench, on_bench

UNHEALTHY_SECONDS = 180.0


async def _empty() -> AsyncIterator[bytes]:
    yield b""


def _answering(path: str, status: int, times: int | None = None) -> Script:
    """Come up, and answer one path with a status, so many times or always, and everything else as a server does."""
    real = FakeServer()
    met: list[str] = []

    def http(method: str, asked: str, body: bytes) -> tuple[int, AsyncIterator[bytes]]:
        if asked == path and (times is None or len(met) < times):
            met.append(asked)
            return status, _empty()
        return real.answer(method, asked, body)

    return _with(http)


def _with(http: Http) -> Script:
    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.http = http
        pod.say(SIMULATOR_LOG + READY_LOG)
        await pod.forever()

    return script


@pytest.mark.fault(31, "R")
@pytest.mark.parametrize(("skew", "words"), [(-3600.0, "ahead of"), (3600.0, "behind"), (0.0, "")])
def test_fault_31_clocks_that_differ(tmp_path: Path, skew: float, words: str) -> None:
    """Measures durations by its own clock alone, and says in the result how far it is from the cluster's."""

    async def work(bench: Bench) -> None:
        bench.server.skew_seconds = skew
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        told = [flag for flag in result.document["flags"] if "clock" in flag]
        assert len(told) == bool(words)
        for flag in told:
            assert words in flag
            assert abs(int(re.findall(r"\d+", flag)[0]) - 3600) <= 5  # a Date has whole seconds
        assert all(0 <= seconds < 1800 for seconds in result.document["seconds"].values())  # no skew is in them

    on_bench(tmp_path, work)


@pytest.mark.fault(39, "R")
def test_fault_39_a_server_that_has_no_metrics(tmp_path: Path) -> None:
    """Records the log's figures without those of /metrics, and blames nobody."""

    async def work(bench: Bench) -> None:
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        assert result.document["metrics"] is None
        assert result.document["start_up"]["facts"]["kv_cache_tokens"] == 184_704

    on_bench(tmp_path, work, script=_answering("/metrics", 404))


@pytest.mark.fault(39, "W")
def test_fault_39_a_server_that_becomes_healthy_late(tmp_path: Path) -> None:
    """Waits for a server that says it is not healthy yet."""

    async def work(bench: Bench) -> None:
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        assert result.document["live"] is not None

    on_bench(tmp_path, work, script=_answering("/health", 503, times=40))


@pytest.mark.fault(39, "P(hang)")
def test_fault_39_a_server_that_stays_unhealthy(tmp_path: Path) -> None:
    """Records `hang` when the server itself says for 3 minutes that it is not healthy."""

    async def work(bench: Bench) -> None:
        (result,) = await bench.sweep()
        kind, line = bench.failure()
        assert kind == "hang"
        assert "/health answered 503" in line
        assert result.document["seconds"]["probe"] >= UNHEALTHY_SECONDS

    on_bench(tmp_path, work, script=_answering("/health", 503), factor=100)


@pytest.mark.fault(41, "R")
def test_fault_41_a_request_that_never_ends(tmp_path: Path) -> None:
    """Keeps what was measured before, and says that the probe was cut short after `probeSeconds`."""

    real = FakeServer()

    async def forever() -> AsyncIterator[bytes]:
        yield b" "
        await asyncio.get_running_loop().create_future()

    def http(method: str, asked: str, body: bytes) -> tuple[int, AsyncIterator[bytes]]:
        return (200, forever()) if asked == "/v1/models" else real.answer(method, asked, body)

    async def work(bench: Bench) -> None:
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        assert "probe cut short" in result.document["live"]["note"]
        assert result.document["seconds"]["probe"] < 60
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=_with(http))


@pytest.mark.fault(39, "W")
def test_fault_39_a_pod_to_which_no_way_leads_for_a_while(tmp_path: Path) -> None:
    """Waits when the API server itself cannot reach the server of the pod: that says nothing about the server."""

    async def work(bench: Bench) -> None:
        words = "error trying to reach service: dial tcp 10.0.0.7:8000: i/o timeout"
        no_way = refusal(503, "ServiceUnavailable", words, where=lambda call: "/proxy/" in call.path, times=8)
        bench.server.faults.add(no_way)
        (result,) = await bench.sweep()
        assert no_way.met == 8
        assert result.failure_kind is None
        assert result.document["live"]["agrees"] is True

    on_bench(tmp_path, work)


@pytest.mark.fault(39, "W")
def test_fault_39_a_page_of_metrics_that_is_none(tmp_path: Path) -> None:
    """Records the log's figures alone where /metrics answers with what is no page of metrics."""

    async def html() -> AsyncIterator[bytes]:
        yield b"<html><body>" + b"\x00\xff" * (1 << 10)

    def http(method: str, asked: str, body: bytes) -> tuple[int, AsyncIterator[bytes]]:
        return (200, html()) if asked == "/metrics" else FakeServer().answer(method, asked, body)

    async def work(bench: Bench) -> None:
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        assert result.document["metrics"] is None
        assert result.document["start_up"]["facts"]["kv_cache_tokens"] == 184704

    on_bench(tmp_path, work, script=_with(http))
