"""`kprof sweep`: builds cluster, store and sweep, runs them, prints the summary."""

import asyncio
import json
import os
import shlex
import signal
import sys
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli.clusters import Where, opened
from orchestrator.cli.console import counted, printable_lines, shown, stdout_console, told
from orchestrator.cli.progress import open_view
from orchestrator.cli.select import load_selected
from orchestrator.cluster.local.adapter import LocalCluster
from orchestrator.cluster.manifest import DEFAULT_SIMULATOR_IMAGE, Simulation
from orchestrator.cluster.port import Cluster
from orchestrator.errors import KprofError, UsageError
from orchestrator.matrix.point import Point
from orchestrator.report.summary import summarise
from orchestrator.report.tables import terminal
from orchestrator.store import RunRecord, Store, open_store
from orchestrator.sweep.run import Sweep
from orchestrator.sweep.schedule import Limits, longest_first


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """The options of one `kprof sweep`."""

    matrix: Path
    local: bool
    simulate: bool
    only: tuple[str, ...]
    max_gpus: int | None
    max_parallel: int | None
    fresh: bool
    repeat: bool
    dry_run: bool
    as_json: bool
    store: str
    context: str | None
    kubeconfig: Path | None
    namespace: str | None
    simulator_image: str | None
    simulate_speed: float
    simulate_gpus: int


def run_sweep(options: SweepOptions) -> int:
    """Run the sweep; returns the exit code of the contract."""
    matrix, selected = load_selected(options.matrix, options.only)
    if options.dry_run:
        _print_plan(selected, options)
        return 0
    simulation = None
    if options.simulate:
        simulation = Simulation(options.simulator_image or DEFAULT_SIMULATOR_IMAGE, options.simulate_speed)
    if options.local and not options.simulate and len({point.image for point in selected}) > 1:
        raise UsageError(
            "--on local runs the one vLLM of this machine, but the matrix names several images",
            remedy="select the points of one image with --only",
        )
    store = open_store(options.store)
    limits = Limits(options.max_gpus, options.max_parallel)

    stop = _Stop()
    left_behind: list[str] = []

    async def run() -> RunRecord:
        async with AsyncExitStack() as stack:
            queued = any(point.queue is not None for point in selected)
            cluster = await _open_cluster(options, stack, queued=queued)
            stop.listen(cluster)
            with open_view(selected, simulated=options.simulate) as view:
                sweep = Sweep(cluster, store, matrix, limits=limits, simulation=simulation, observe=view.update)
                record = await sweep.prepare(selected, fresh=options.fresh, repeat=options.repeat)
                with store.driving(record):
                    view.start(record, {point.hash for point in sweep.remaining(record, selected)})
                    try:
                        await sweep.run(record, selected)
                    finally:
                        left_behind.extend(sweep.left_behind)
        return record

    try:
        record = asyncio.run(run())
    except (KeyboardInterrupt, asyncio.CancelledError):
        _tell_stuck(left_behind)
        _say(f"interrupted: {'nothing else' if left_behind else 'nothing'} is left running; the same command resumes")
        return 130
    except KprofError as error:
        if not stop.asked:
            raise
        _say(f"interrupted, and not all could be cleaned up: {told(error)}")
        _say("the same command finds and removes what is left")
        return 130
    _tell_stuck(left_behind)
    return _print_summary(store, record, selected, as_json=options.as_json)


def _say(text: str) -> None:
    with suppress(OSError):  # whoever read stderr may have gone, and what is to be done must be done all the same
        print(printable_lines(text), file=sys.stderr, flush=True)  # noqa: T201


def _tell_stuck(names: list[str]) -> None:
    for name in names:
        _say(f"pod {name} was deleted and has not gone yet: look at its node; it may still hold devices")


SHOW_CURSOR = b"\r\n\x1b[?25h"
LEFT_AS_IT_IS = b"stopped without cleaning up: the same command goes on with what is left, `kprof clean` removes it\n"


class _Stop:
    """Ctrl-C, SIGTERM and a terminal that goes away: the first one cleans up and ends, the second one ends at once."""

    def __init__(self) -> None:
        self.asked = False

    def listen(self, cluster: Cluster) -> None:
        """Take the signals over for the task that calls this; `nohup` keeps its say."""
        task = asyncio.current_task()

        def asked() -> None:
            if self.asked:
                # Past whatever is drawn on the terminal, whose cursor comes back.
                with suppress(OSError):
                    os.write(2, (SHOW_CURSOR if sys.stderr.isatty() else b"") + LEFT_AS_IT_IS)
                os._exit(130)
            self.asked = True
            cluster.hurry()
            if task is not None:
                task.cancel()
            _say("stopping: deleting what was started (once more: leave it and stop at once)")

        def hung_up() -> None:
            if not self.asked:  # a terminal that goes away sends it twice: by its shell, and by the kernel
                asked()

        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, asked)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, hung_up)


async def _open_cluster(options: SweepOptions, stack: AsyncExitStack, *, queued: bool) -> Cluster:
    if options.local:
        if options.simulate:
            simulator = (sys.executable, "-m", "orchestrator.simulator")
            return LocalCluster(simulator, devices=options.simulate_gpus)
        return LocalCluster()
    kubeconfig = None if options.kubeconfig is None else str(options.kubeconfig)
    where = Where(False, kubeconfig, options.context, options.namespace)
    return await stack.enter_async_context(opened(where, queued=queued))


def _print_plan(selected: list[Point], options: SweepOptions) -> None:
    order = longest_first(selected)
    if options.as_json:
        plan = [
            {
                "point": point.id,
                "hash": point.hash,
                "devices": point.accelerator.count,
                "image": point.image,
                "argv": point.argv,
            }
            for point in order
        ]
        print(json.dumps({"points": plan}))  # noqa: T201
        return
    for point in order:
        devices = f"{point.accelerator.count} x {point.accelerator.resource or 'no device'}"
        print(shown(f"{point.id}  [{devices}]  {point.image}  vllm serve {' '.join(point.argv)}"))  # noqa: T201
    most = max(point.accelerator.count for point in order)
    mark = ", SIMULATED" if options.simulate else ""
    print(f"{counted(len(order), 'point')}, at most {counted(most, 'device')} each{mark}")  # noqa: T201


def _print_summary(store: Store, run: RunRecord, selected: list[Point], *, as_json: bool) -> int:
    wanted = {point.hash for point in selected}
    results = [result for result in store.results(run.id) if result.point.hash in wanted]
    have = {result.point.hash for result in results}
    record = store.run(run.id) or run
    summary = summarise(record, results, [point.id for point in selected if point.hash not in have])
    if as_json:
        print(json.dumps(summary.to_json()))  # noqa: T201
    else:
        terminal(summary, stdout_console())
        where = "" if store.name == "kprof.db" else f" --store {shlex.quote(store.name)}"
        _say(f"next: kprof show {selected[0].id}{where}")
    return 0 if summary.as_expected else 1
