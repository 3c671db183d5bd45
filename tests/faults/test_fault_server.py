"""The fault server itself: without a fault, kprof notices no difference to a cluster."""

from pathlib import Path

from tests.e2e import stored
from tests.e2e.command import Kprof
from tests.e2e.test_e2e_errors import write_matrix
from tests.faults.background import BackgroundServer
from tests.faults.scripts import serving
from tests.faults.sweeping import Bench, on_bench


def test_a_sweep_of_real_simulators(background: BackgroundServer, kprof: Kprof) -> None:
    """`kprof sweep --simulate` measures its point, live check included, and leaves nothing behind."""
    outcome = kprof.run("sweep", write_matrix(kprof.folder), "--simulate", "--simulate-speed", "500")
    assert outcome.code == 0, outcome.stderr
    (result,) = stored.results(kprof.store)
    assert result.document["failure"] is None
    assert result.document["live"]["agrees"] is True
    assert background.server.left() == []


def test_a_sweep_of_scripted_pods(tmp_path: Path) -> None:
    """The same within the test's process, with pods that are played."""

    async def work(bench: Bench) -> None:
        results = await bench.sweep()
        assert [result.failure_kind for result in results] == [None, None]
        assert bench.server.left() == []

    on_bench(tmp_path, work, script=serving, points=2)
