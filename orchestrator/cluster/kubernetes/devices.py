"""The accelerators of a cluster: what its nodes have, and what pods hold of it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.cluster.kubernetes.pages import items
from orchestrator.cluster.kubernetes.transport import Transport
from orchestrator.cluster.port import RUN_LABEL

LIVE_PODS = "status.phase!=Succeeded,status.phase!=Failed"  # a field selector


@dataclass
class Node:
    """What a node has of each extended resource, and what its pods hold of it; `open` says that it takes pods."""

    open: bool
    allocatable: Counter[str]
    labels: Mapping[str, str]
    held: Counter[str] = field(default_factory=Counter)

    def free(self, resource: str) -> int:
        """Return what another pod could have; 0 on a node that takes none."""
        return max(0, self.allocatable[resource] - self.held[resource]) if self.open else 0


@dataclass
class Devices:
    """All nodes, and what kprof's own pods ask for that the scheduler is about to place.

    Another's pod without a node takes nothing yet.
    """

    nodes: list[Node]
    unplaced: Counter[str]

    def free(self, resource: str) -> int:
        """Return what is free on the nodes that take pods, whichever they are."""
        return max(0, sum(node.free(resource) for node in self.nodes) - self.unplaced[resource])


async def read_devices(transport: Transport) -> Devices:
    """Read all nodes and all pods, page by page; ApiError and ClusterError pass through."""
    nodes: dict[str, Node] = {}
    async for raw in items(transport, "/api/v1/nodes"):
        allocatable = (raw.get("status") or {}).get("allocatable") or {}
        nodes[raw["metadata"]["name"]] = Node(
            _takes_pods(raw), _extended(allocatable), raw["metadata"].get("labels") or {}
        )
    unplaced: Counter[str] = Counter()
    async for raw in items(transport, "/api/v1/pods", {"fieldSelector": LIVE_PODS}):
        spec = raw.get("spec") or {}
        name = spec.get("nodeName")
        if name in nodes:
            nodes[name].held += _asked(spec)
        elif not name and RUN_LABEL in ((raw.get("metadata") or {}).get("labels") or {}):
            unplaced += _asked(spec)
    return Devices(list(nodes.values()), unplaced)


def _takes_pods(node: Mapping[str, Any]) -> bool:
    """Say whether a node object is neither cordoned nor out of reach."""
    conditions = (node.get("status") or {}).get("conditions") or []
    lost = any(item.get("type") == "Ready" and item.get("status") != "True" for item in conditions)
    return not lost and not (node.get("spec") or {}).get("unschedulable")


def _asked(spec: Mapping[str, Any]) -> Counter[str]:
    total: Counter[str] = Counter()
    for container in spec.get("containers") or []:
        total += _extended((container.get("resources") or {}).get("limits") or {})
    return total


def _extended(amounts: Mapping[str, Any]) -> Counter[str]:
    """Return whole amounts of resources with a domain in their names: cpu and memory have none."""
    return Counter({name: int(str(text)) for name, text in amounts.items() if "/" in name and str(text).isdigit()})
