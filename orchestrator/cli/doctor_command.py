"""`kprof doctor`: can this cluster run a sweep?"""

import asyncio
import json
import sys
from pathlib import Path

from rich.text import Text

from orchestrator.cli.clusters import Where, opened
from orchestrator.cli.console import stdout_console
from orchestrator.cli.select import load_selected
from orchestrator.cluster.manifest import Simulation, render_pod
from orchestrator.cluster.port import Finding, Level
from orchestrator.report.tables import printable
from orchestrator.vllm_log import redact

_RUN = "doctor00"  # the pods are never created
_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


def examine(where: Where, matrix: Path | None, only: tuple[str, ...], *, simulate: bool, as_json: bool) -> int:
    """Print every finding; returns 0, or 1 when one of them stops a sweep.

    Raises ClusterError when nobody answers, UsageError for a bad matrix.
    """
    points = [] if matrix is None else load_selected(matrix, only)[1]
    manifests = [render_pod(point, _RUN, 0, Simulation() if simulate else None) for point in points]
    console = stdout_console()

    def show(finding: Finding) -> None:
        if as_json:
            document = {"level": str(finding.level).lower(), "subject": finding.subject, "text": redact(finding.text)}
            sys.stdout.write(json.dumps({**document, "remedy": finding.remedy}) + "\n")
            return
        line = Text(f"{finding.level:<5}", style=_STYLES[finding.level])
        line.append(printable(f"{finding.subject}: {redact(finding.text)}"), style="default")
        console.print(line, soft_wrap=True)
        if finding.remedy:
            console.print(Text(printable(f"      {finding.remedy}")), soft_wrap=True)

    async def run() -> bool:
        failed = False
        async with opened(where) as cluster:
            async for finding in cluster.examine(manifests):
                failed = failed or finding.level is Level.FAIL
                show(finding)
        return failed

    return 1 if asyncio.run(run()) else 0
