"""`kprof clean`: removes what killed kprofs left on a cluster."""

import asyncio
import json
import sys

from rich.text import Text

from orchestrator.cli.clusters import Where, opened
from orchestrator.cli.console import shown, stdout_console
from orchestrator.cluster.port import Cluster, Leftover
from orchestrator.errors import ClusterError, RunDrivenError
from orchestrator.vllm_log import redact


def clean_up(where: Where, *, dry_run: bool, as_json: bool) -> int:
    """Remove the leftovers of every run that nobody drives, and print each; returns 0, or 4 when something stays.

    Raises ClusterError when the cluster cannot be reached at all.
    """
    console = stdout_console()

    def show(left: Leftover, what: str) -> None:
        if as_json:
            document = {"run": left.run, "pods": list(left.pods), "others": list(left.others), "outcome": redact(what)}
            sys.stdout.write(json.dumps(document) + "\n")
        else:
            names = ", ".join((*left.pods, *left.others))
            console.print(Text(shown(f"run {left.run}: {what}: {names}")), soft_wrap=True)

    async def run() -> int:
        code = 0
        async with opened(where) as cluster:
            there = await cluster.leftovers()
            for left in there:
                what, whole = await _treat(cluster, left, dry_run=dry_run)
                show(left, what)
                if not whole:
                    code = ClusterError.exit_code
        if not there and not as_json:
            console.print(Text("nothing of kprof is there"))
        return code

    return asyncio.run(run())


async def _treat(cluster: Cluster, left: Leftover, *, dry_run: bool) -> tuple[str, bool]:
    """Return what became of the leftovers, and whether all of them are gone that should be."""
    if dry_run:
        return "would be removed, unless a kprof drives it", True  # to find out would take a dead one's Lease
    try:
        async with cluster.hold(left.run):
            stuck = await cluster.close_run(left.run)
    except RunDrivenError as error:
        return f"left alone, {error.message}", True
    except ClusterError as error:
        return f"not removed, {error.message}", False
    if not stuck:
        return "removed", True
    names = f"pod {stuck[0]} has" if len(stuck) == 1 else f"pods {', '.join(stuck)} have"
    nodes = "its node" if len(stuck) == 1 else "their nodes"
    return f"removed, but {names} not gone yet: look at {nodes}", False
