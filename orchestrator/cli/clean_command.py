"""`kprof clean`: removes what killed kprofs left on a cluster."""

import asyncio
import json
import sys

from rich.text import Text

from orchestrator.cli.clusters import Where, opened
from orchestrator.cli.console import stdout_console
from orchestrator.cluster.port import Cluster, Leftover
from orchestrator.errors import RunDrivenError


def clean_up(where: Where, *, dry_run: bool, as_json: bool) -> int:
    """Remove the leftovers of every run that nobody drives, and print them; returns 0.

    Raises ClusterError when the cluster cannot be reached or refuses.
    """

    async def run() -> list[tuple[Leftover, str]]:
        async with opened(where) as cluster:
            return [(left, await _treat(cluster, left, dry_run=dry_run)) for left in await cluster.leftovers()]

    treated = asyncio.run(run())
    if as_json:
        for left, what in treated:
            document = {"run": left.run, "pods": list(left.pods), "others": list(left.others), "outcome": what}
            sys.stdout.write(json.dumps(document) + "\n")
        return 0
    console = stdout_console()
    for left, what in treated:
        names = ", ".join((*left.pods, *left.others))
        console.print(Text(f"run {left.run}: {what}: {names}"), soft_wrap=True)
    if not treated:
        console.print(Text("nothing of kprof is there"))
    return 0


async def _treat(cluster: Cluster, left: Leftover, *, dry_run: bool) -> str:
    if dry_run:
        return "would be removed, unless a kprof drives it"  # to find out would take a dead one's Lease
    try:
        async with cluster.hold(left.run):
            await cluster.close_run(left.run)
            return "removed"
    except RunDrivenError as error:
        return f"left alone, {error.message}"
