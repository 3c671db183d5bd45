"""A results store that is locked, full or damaged: measured results are not lost, and nothing starts without one."""

import asyncio
import resource
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from orchestrator.errors import KprofError
from orchestrator.profile.point_run import UnsavedResultError
from orchestrator.profile.recording import PAUSE_SECONDS, patiently
from orchestrator.store import RunRecord, Store, open_store, sqlite
from tests.e2e import stored
from tests.e2e.command import Kprof
from tests.e2e.test_e2e_errors import write_matrix
from tests.e2e.waiting import eventually, wait_until
from tests.fakes.cluster import SIMULATOR_LOG
from tests.fakes.matrix import point
from tests.faults.background import BackgroundServer
from tests.faults.kubelet import PodPlay, Script
from tests.faults.scripts import be_ready
from tests.faults.sweeping import Bench, on_bench

SHORT_OF_THE_LIMIT_SECONDS = 30.0
TRIED_SECONDS = 3.0


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Hold the store's write lock, as another program may."""
    with closing(sqlite3.connect(store, isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def _gated(go: asyncio.Event) -> Script:
    async def script(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        await go.wait()
        be_ready(pod)
        await pod.forever()

    return script


async def _until_probed(bench: Bench) -> None:
    async def probed() -> bool:
        return any("/proxy/v1/completions" in call.path for call in bench.server.calls)

    await eventually("the server was probed", probed)


@pytest.mark.fault(35, "W")
def test_fault_35_a_store_that_is_locked_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the pod and writes the result as soon as the store can be written, within a minute."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.02)
    go = asyncio.Event()

    async def work(bench: Bench) -> None:
        sweeping = asyncio.create_task(bench.sweep())
        await bench.until_read()
        with _locked(tmp_path / "kprof.db"):
            go.set()
            await _until_probed(bench)
            await asyncio.sleep(SHORT_OF_THE_LIMIT_SECONDS)
            assert len(bench.server.pods) == 1
            assert not sweeping.done()
        (result,) = await sweeping
        assert result.failure_kind is None
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=_gated(go))


@pytest.mark.fault(35, "W")
def test_fault_35_kprof_hears_while_its_store_is_locked(tmp_path: Path) -> None:
    """Goes on with all else while ten results wait for the store: it renews its Lease, and hears a signal."""
    with closing(open_store(f"sqlite:///{tmp_path / 'kprof.db'}")) as store:
        run = store.create_run("0a1b2c3d", "m", "digest", "cluster", "measured", [point()])
        deaf = asyncio.run(_longest_silence(store, run, tmp_path / "kprof.db"))
    assert deaf < 3.5  # SQLite's own wait for a lock would take 5


async def _longest_silence(store: Store, run: RunRecord, path: Path) -> float:
    """Return for how long at most the loop stood still while ten calls met a locked store."""
    gaps: list[float] = []

    async def beat() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    heart = asyncio.create_task(beat())
    with store.driving(run), _locked(path):
        calls = []
        for _ in range(10):
            calls.append(asyncio.create_task(patiently(lambda: store.finish_run(run.id))))
            await asyncio.sleep(0.02)
        await asyncio.sleep(PAUSE_SECONDS + 3.0)
    await asyncio.gather(*calls)
    heart.cancel()
    return max(gaps)


@pytest.mark.fault(35, "A")
def test_fault_35_a_store_that_stays_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends the sweep after a minute and leaves the pod; the same command reads it again and makes no other."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.02)
    go = asyncio.Event()

    async def work(bench: Bench) -> None:
        sweeping = asyncio.create_task(bench.sweep())
        await bench.until_read()
        with _locked(tmp_path / "kprof.db"):
            go.set()
            with pytest.raises(UnsavedResultError, match=r"g0: .*locked"):
                await sweeping
        assert len(bench.server.pods) == 1
        assert bench.results() == []
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        assert len(bench.server.kubelet.history) == 1
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=_gated(go))


@pytest.mark.fault(35, "W")
def test_fault_35_a_kprof_that_is_stopped_while_the_store_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keeps the pod whose result it could not write when it is told to stop; the same command reads it again."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.02)
    go = asyncio.Event()

    async def work(bench: Bench) -> None:
        sweeping = asyncio.create_task(bench.sweep())
        await bench.until_read()
        with _locked(tmp_path / "kprof.db"):
            go.set()
            await _until_probed(bench)
            await asyncio.sleep(SHORT_OF_THE_LIMIT_SECONDS)
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)
        assert sweeping.cancelled() or isinstance(sweeping.exception(), KprofError)
        assert len(bench.server.pods) == 1
        assert bench.results() == []
        (result,) = await bench.sweep()
        assert result.failure_kind is None
        assert len(bench.server.kubelet.history) == 1
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=_gated(go))


@contextmanager
def _no_room(pid: int, store: Path) -> Iterator[None]:
    """Let no file of a process grow beyond what its store's log has now: to SQLite the disk is full."""
    wal = store.with_name(f"{store.name}-wal")
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (wal.stat().st_size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@pytest.mark.fault(35, "W")
def test_fault_35_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    """Keeps the pod while nothing can be written, and records the result when there is room again."""
    go = asyncio.Event()
    with BackgroundServer(_gated(go)) as background:
        server = background.server
        command = Kprof(tmp_path, server.kubeconfig(tmp_path))
        running = command.start("sweep", write_matrix(tmp_path), "--format", "json")
        try:
            wait_until("the log is being read", lambda: server.streams >= 2, seconds=30)
            with _no_room(running.process.pid, command.store):
                background.do(go.set)
                wait_until(
                    "the server was probed",
                    lambda: any("/proxy/v1/completions" in call.path for call in list(server.calls)),
                    seconds=30,
                )
                time.sleep(TRIED_SECONDS)  # it has tried to write by now, and must not have deleted the pod
                assert running.process.poll() is None
                assert stored.results(command.store) == []
                assert len(server.pods) == 1
            outcome = running.outcome(30)
        finally:
            command.close()
        assert outcome.code == 0, outcome.stderr
        assert [result.document["failure"] for result in stored.results(command.store)] == [None]
        assert server.left() == []


@pytest.mark.fault(36, "A")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version: 1\nname: [unclosed\n", "matrix.yaml:"),
        ("version: 1\nname: a\nname: b\n", "matrix.yaml:3"),
        ("version: 1\nname: a\ngrups: []\n", "grups"),
    ],
    ids=["no-yaml", "twice", "unknown-field"],
)
def test_fault_36_a_damaged_matrix(background: BackgroundServer, kprof: Kprof, text: str, words: str) -> None:
    """Names the file and the line, or the field, before it says a word to the API server."""
    path = kprof.folder / "matrix.yaml"
    path.write_text(text)
    outcome = kprof.run("sweep", str(path))
    assert outcome.code == 2
    assert words in outcome.error
    assert background.server.calls == []


@pytest.mark.fault(36, "A")
@pytest.mark.parametrize("content", [b"this is no database " * 300, b"SQLite format 3\0" * 256], ids=["text", "torn"])
def test_fault_36_a_damaged_store(background: BackgroundServer, kprof: Kprof, content: bytes) -> None:
    """Names the store's file and leaves it as it is, before it says a word to the API server."""
    kprof.store.write_bytes(content)
    outcome = kprof.run("sweep", write_matrix(kprof.folder))
    assert outcome.code == 1
    assert "kprof.db" in outcome.error
    assert kprof.store.read_bytes() == content
    assert background.server.calls == []
