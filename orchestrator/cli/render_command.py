"""`kprof render`."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from orchestrator.cli.select import load_selected
from orchestrator.cluster.job import object_of
from orchestrator.cluster.manifest import DEFAULT_SIMULATOR_IMAGE, Simulation, render_pod

RENDER_RUN = "00000000"


def render_matrix(
    path: Path, only: Sequence[str], simulate: bool, image: str | None, speed: float, namespace: str | None
) -> str:
    """Return the pods of the selected points, or their Jobs where a queue is named, as one YAML stream."""
    _, points = load_selected(path, only)
    simulation = Simulation(image or DEFAULT_SIMULATOR_IMAGE, speed) if simulate else None
    bodies = []
    for point in points:
        body = object_of(render_pod(point, RENDER_RUN, 0, simulation))
        if namespace:
            body["metadata"] = {"namespace": namespace} | body["metadata"]
        bodies.append(body)
    return yaml.safe_dump_all(bodies, sort_keys=False, explicit_start=True)
