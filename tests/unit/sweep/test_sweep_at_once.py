"""Two sweeps of one matrix that are started at the same time, as by a CronJob and by hand."""

import asyncio
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from orchestrator.cluster.port import PodManifest
from orchestrator.store import RunRecord, Store, open_store
from orchestrator.sweep.run import Sweep
from orchestrator.sweep.schedule import Limits
from tests.fakes.cluster import FakeCluster
from tests.fakes.matrix import group, load
from tests.fakes.results import document

pytestmark = pytest.mark.looptime


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return an empty store."""
    opened = open_store(str(tmp_path / "kprof.db"))
    yield opened
    opened.close()


class _Slow(FakeCluster):
    """Takes its time to say whether it could run the points, as a real one does."""

    async def check(self, manifests: Sequence[PodManifest]) -> None:
        await super().check(manifests)
        await asyncio.sleep(1)


async def _both(store: Store, label: str = "one", *, fresh: bool = False, repeat: bool = False) -> list[RunRecord]:
    """Let two sweeps choose their runs; the second one's matrix calls its point so."""
    matrices = [load(group("g0", label=name)) for name in ("one", label)]
    sweeps = [Sweep(_Slow({}), store, matrix, limits=Limits()) for matrix in matrices]
    preparing = (
        sweep.prepare(matrix.points, fresh=fresh, repeat=repeat) for sweep, matrix in zip(sweeps, matrices, strict=True)
    )
    return await asyncio.gather(*preparing)


async def test_they_share_one_run(store: Store) -> None:
    """So that the second one is refused while the first one drives it, and nothing is measured twice."""
    first, second = await _both(store, "two")
    assert (first, store.runs()) == (second, [first])
    (point,) = store.points(first.id)
    assert point.label == "two"


async def test_they_share_one_run_of_a_night(store: Store) -> None:
    """Also where the run before was finished, and `--repeat` asks for a new one."""
    matrix = load(group("g0"))
    before = await Sweep(FakeCluster({}), store, matrix, limits=Limits()).prepare(matrix.points, fresh=False)
    store.record(before.id, document(matrix.points[0]), zlib.compress(b""), 0, truncated=False)
    store.finish_run(before.id)
    first, second = await _both(store, repeat=True)
    assert first == second
    assert (len(store.runs()), first.number) == (2, 2)


async def test_each_has_its_own_run_with_fresh(store: Store) -> None:
    """As it was asked for."""
    first, second = await _both(store, fresh=True)
    assert first.id != second.id
