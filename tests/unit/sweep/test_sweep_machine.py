"""Sweeps under whatever happens, in any order: limits hold, every point gets one final result, nothing stays."""

import asyncio
import contextlib
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import looptime
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.cluster.port import Phase, PodManifest, PodSnapshot
from orchestrator.errors import ClusterError
from orchestrator.store import open_store
from orchestrator.sweep.run import Progress, Sweep
from orchestrator.sweep.schedule import Limits
from orchestrator.sweep.trouble import of_cluster
from tests.fakes.cluster import (
    NO_ROOM_LOG,
    READY_LOG,
    SIMULATOR_LOG,
    FakeCluster,
    FakePod,
    FakeServer,
    Script,
    ended,
    log,
    running,
    serve,
)
from tests.fakes.matrix import group, load

DAY = 86400
LIMITS = {"queueSeconds": DAY, "startupSeconds": DAY, "stallSeconds": DAY, "probeSeconds": 30}
LARGEST_POINT = 4
HOUR = 3600.0
XID_LOG = b"NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus.\n"
LOADING: Script = [running(), log(SIMULATOR_LOG)]
GOOD: Script = [*LOADING, log(READY_LOG), serve(FakeServer())]
PRESENT = st.integers(0, 11)  # which pod of those that are there


class _StrictCluster(FakeCluster):
    """Takes no pod beyond the devices that it said are free, except one when nothing else is there: that one queues."""

    def __init__(self, scripts: dict[str, Script], devices: int) -> None:
        super().__init__(scripts, devices=devices)
        self._told = devices
        self.recorded: set[str] = set()

    async def free_devices(self, resource: str | None) -> int | None:
        """Remember what the sweep was told."""
        self._told = self.devices or 0
        return await super().free_devices(resource)

    async def create(self, manifest: PodManifest) -> PodSnapshot:
        """Check what the sweep asks for."""
        held = sum(pod.devices for name, pod in self.pods.items() if name != manifest.name)
        assert held + manifest.devices <= self._told or not held, "a pod was made for devices that nobody has"
        assert manifest.name not in self.recorded, "a pod was made again that had its result"
        return await super().create(manifest)


class SweepMachine(RuleBasedStateMachine):
    """One matrix, one store, one cluster; sweeps that are started, interrupted and resumed."""

    @initialize(
        sizes=st.lists(st.sampled_from([1, 2, LARGEST_POINT]), min_size=1, max_size=7),
        max_gpus=st.none() | st.integers(LARGEST_POINT, 8),
        max_parallel=st.none() | st.integers(1, 4),
        devices=st.integers(0, 8),
    )
    def begin(self, sizes: list[int], max_gpus: int | None, max_parallel: int | None, devices: int) -> None:
        """Write the matrix and start the first sweep."""
        self.folder = tempfile.TemporaryDirectory()
        self.store = open_store(str(Path(self.folder.name) / "kprof.db"))
        groups = (group(f"g{n}", arguments={"seed": n, "tp": size}) for n, size in enumerate(sizes))
        self.matrix = load(*groups, timeouts=LIMITS)
        self.limits = Limits(max_gpus, max_parallel)
        self.cluster = _StrictCluster({point.hash: LOADING for point in self.matrix.points}, devices)
        self.final: Counter[str] = Counter()
        self.loop = looptime.new_event_loop(start=0)
        self.sweeping: asyncio.Task[None] | None = None
        self.start()

    @precondition(lambda self: self.sweeping is None)
    @rule()
    def start(self) -> None:
        """Run the command, or run it again."""
        sweep = Sweep(self.cluster, self.store, self.matrix, limits=self.limits, observe=self._note)
        self.sweeping = self.loop.create_task(self._sweep(sweep))
        self.wait(1.0)

    @rule(seconds=st.sampled_from([0.05, 1.0, 11.0, 60.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.run_until_complete(asyncio.sleep(seconds))
        if self.sweeping is not None and self.sweeping.done():
            self._ended()

    @rule(devices=st.integers(0, 8))
    def nodes_come_and_go(self, devices: int) -> None:
        """Change what the cluster has."""
        self.cluster.devices = devices

    @rule(which=PRESENT)
    def pod_serves(self, which: int) -> None:
        """Let a pod come up."""
        self._play(which, [log(READY_LOG), serve(FakeServer())])

    @rule(which=PRESENT, text=st.sampled_from([NO_ROOM_LOG, XID_LOG, b""]), code=st.sampled_from([0, 1]))
    def container_ends(self, which: int, text: bytes, code: int) -> None:
        """Let a container end, with or without words that say why."""
        self._play(which, [log(text), ended(code)])

    @rule(which=PRESENT, reason=st.sampled_from(["Evicted", "NodeShutdown", "OutOfnvidia.com/gpu"]))
    def kubelet_fails_it(self, which: int, reason: str) -> None:
        """Let the kubelet end a pod."""
        self._show(which, phase=Phase.FAILED, reason=reason)

    @rule(which=PRESENT)
    def scheduler_preempts_it(self, which: int) -> None:
        """Let a pod give way to a more important one."""
        self._show(which, disruption="PreemptionByScheduler", deleting=True)

    @rule(which=PRESENT)
    def pod_vanishes(self, which: int) -> None:
        """Take a pod away."""
        if (pod := self._pod(which)) is not None:
            pod.vanish()

    @precondition(lambda self: self.sweeping is not None)
    @rule()
    def interrupt(self) -> None:
        """Stop the command as Ctrl-C does."""
        assert self.sweeping is not None
        self.sweeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            self.loop.run_until_complete(asyncio.wait_for(self.sweeping, 60))
        self._ended()

    @invariant()
    def no_limit_is_passed(self) -> None:
        """Never hold more devices than the user allows, nor run more points at once."""
        if not hasattr(self, "cluster"):
            return
        held, pods = sum(pod.devices for pod in self.cluster.pods.values()), len(self.cluster.pods)
        assert self.limits.max_gpus is None or held <= self.limits.max_gpus
        assert self.limits.max_parallel is None or pods <= self.limits.max_parallel

    def teardown(self) -> None:
        """Let everything go well from here: every point gets its final result, and nothing is left."""
        if not hasattr(self, "cluster"):
            return
        try:
            self.cluster.devices = 8
            self.cluster.scripts = dict.fromkeys(self.cluster.scripts, GOOD)
            for number in range(len(self.cluster.pods)):
                self.pod_serves(number)
            while self.final.total() < len(self.matrix.points):
                if self.sweeping is None:
                    self.start()
                if self.sweeping is not None:
                    self.loop.run_until_complete(asyncio.wait({self.sweeping}, timeout=HOUR))
                    assert self.sweeping.done(), "the sweep stands still"
                    self._ended()
            self._check_end()
        finally:
            self._close()

    def _check_end(self) -> None:
        run = self.store.latest_run()
        assert run is not None
        results = self.store.results(run.id)
        assert sorted(result.point.id for result in results) == sorted(point.id for point in self.matrix.points)
        assert not any(of_cluster(result.failure_kind) for result in results)
        assert run.finished_at is not None
        assert set(self.final.values()) == {1}, "a point was measured again that had its final result"

    def _close(self) -> None:
        if self.sweeping is not None:
            self.sweeping.cancel()
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        if left:
            self.loop.run_until_complete(asyncio.wait(left))
        self.loop.close()
        self.store.close()
        self.folder.cleanup()

    async def _sweep(self, sweep: Sweep) -> None:
        run = await sweep.prepare(self.matrix.points, fresh=False)
        await sweep.run(run, self.matrix.points)

    def _note(self, progress: Progress) -> None:
        if progress.result is not None:
            failure = progress.result.failure
            self.cluster.recorded.add(progress.result.pod)
            self.final[progress.point.id] += failure is None or not of_cluster(failure.kind)

    def _ended(self) -> None:
        """Check what a sweep left that ended in whatever way."""
        assert self.sweeping is not None
        if not self.sweeping.cancelled():
            with contextlib.suppress(ClusterError):  # the stop rules
                self.sweeping.result()
        self.sweeping = None
        assert not self.cluster.pods
        assert not self.cluster.open_runs
        assert not self.cluster.driven

    def _pod(self, which: int) -> FakePod | None:
        there = [pod for pod in self.cluster.pods.values() if not pod.snapshot.finished and not pod.snapshot.deleting]
        return there[which % len(there)] if there else None

    def _play(self, which: int, script: Script) -> None:
        if (pod := self._pod(which)) is not None:
            for _, step in script:
                step(pod)

    def _show(self, which: int, **changes: Any) -> None:
        if (pod := self._pod(which)) is not None:
            pod.show(**changes)


SweepMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestSweepMachine = SweepMachine.TestCase
