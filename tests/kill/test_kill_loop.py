"""kprof killed hundreds of times: every result once, every pod once, nothing left."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.bed.layout import layout
from tests.e2e.command import Kprof
from tests.e2e.kube import Kube
from tests.e2e.local_pods import LocalSampler
from tests.kill.conftest import KILLS
from tests.kill.loop import Figures, KillLoop
from tests.kill.places import Place, TheBed, ThisMachine

HALF = max(1, KILLS // 2)


def killed(kprof: Kprof, place: Place, seed: int) -> Figures:
    """Run one half of the kills."""
    try:
        return KillLoop(kprof, place, seed).run(HALF)
    finally:
        kprof.close()


@pytest.mark.fault(33, "R")
def test_killed_again_and_again(kube: Kube, namespace: str, tmp_path: Path) -> None:
    """Half of the kills hit sweeps on this machine, half sweeps on the bed, side by side to use the time."""
    if kube.kubeconfig != layout().kubeconfig:
        pytest.skip("THE KILL LOOP NEEDS THE TEST BED: another cluster's audit log cannot be read")
    folders = [tmp_path / name for name in ("local", "bed")]
    for folder in folders:
        folder.mkdir()
    local, bed = Kprof(folders[0]), Kprof(folders[1], kube.kubeconfig)
    with LocalSampler(local.state) as seen, ThreadPoolExecutor() as halves:
        places: dict[str, Future[Figures]] = {
            "on this machine": halves.submit(killed, local, ThisMachine(seen, local.store), 1),
            "on the bed": halves.submit(killed, bed, TheBed(kube, namespace), 2),
        }
        figures = {name: half.result() for name, half in places.items()}
    for name, half in figures.items():
        print(f"\nkill -9 {name}: {half.line()}")
    for half in figures.values():
        assert (half.leaked, half.lost, half.double) == ([], [], [])
        assert half.kills == HALF
        assert half.pods == half.points, "a pod that a killed kprof left is adopted, so each point takes one"
        assert half.busy > half.kills / 4, "most kills came when there was nothing to lose"
