"""From a pod as the API server sends it to a snapshot; odd or missing fields never fail it."""

from collections.abc import Mapping
from typing import Any

from orchestrator.cluster.port import CONTAINER, Container, Phase, PodSnapshot

_STATES = ("terminated", "running", "waiting")


def read_pod(raw: Mapping[str, Any]) -> PodSnapshot:
    """Read a pod object."""
    metadata = raw.get("metadata") or {}
    status = raw.get("status") or {}
    conditions = {item.get("type"): item for item in status.get("conditions") or [] if isinstance(item, dict)}
    scheduled = conditions.get("PodScheduled") or {}
    disruption = conditions.get("DisruptionTarget") or {}
    words = str(scheduled.get("message") or "") if scheduled.get("status") == "False" else ""
    gated = scheduled.get("reason") == "SchedulingGated" and scheduled.get("status") == "False"
    try:
        phase = Phase(status.get("phase") or "Pending")
    except ValueError:
        phase = Phase.UNKNOWN
    return PodSnapshot(
        name=str(metadata.get("name") or ""),
        uid=str(metadata.get("uid") or ""),
        labels=dict(metadata.get("labels") or {}),
        phase=phase,
        reason=str(status.get("reason") or ""),
        message=str(status.get("message") or ""),
        ip=status.get("podIP") or None,
        node=(raw.get("spec") or {}).get("nodeName"),
        unschedulable=words if words and not gated else None,
        gated=words or "SchedulingGated" if gated else None,
        disruption=disruption.get("reason") if disruption.get("status") == "True" else None,
        deleting=bool(metadata.get("deletionTimestamp")),
        container=_container(status),
    )


def _container(status: Mapping[str, Any]) -> Container | None:
    for item in status.get("containerStatuses") or []:
        if item.get("name") != CONTAINER:
            continue
        state = item.get("state") or {}
        for name in _STATES:
            if name in state:
                detail = state[name] or {}
                return Container(
                    state=name,
                    reason=str(detail.get("reason") or ""),
                    message=str(detail.get("message") or ""),
                    exit_code=detail.get("exitCode"),
                    restarts=restarts if isinstance(restarts := item.get("restartCount"), int) else 0,
                )
    return None
