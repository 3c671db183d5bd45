"""From a point to its pod: the base pod of `manifests/pod.yaml`, filled in as data, never as text."""

import copy
import functools
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from orchestrator.cluster.port import (
    ATTEMPT_LABEL,
    HTTP_PORT,
    POINT_ID_LABEL,
    POINT_LABEL,
    RUN_LABEL,
    SPEC_LABEL,
    PodManifest,
)
from orchestrator.matrix.point import Point
from orchestrator.resources import shipped
from orchestrator.vllm.devices import DEFAULT_DEVICE

# What the vendors' labellers call the product on a node; others have no such label.
PRODUCT_LABELS = {"nvidia.com/gpu": "nvidia.com/gpu.product", "amd.com/gpu": "amd.com/gpu.product-name"}
SHM_SIZE = "10Gi"
DEFAULT_SIMULATOR_IMAGE = "docker.io/kprof/vllm-simulator:dev"
DEFAULT_SIMULATED_VERSION = "0.19.0"


@dataclass(frozen=True, slots=True)
class Simulation:
    """Run the simulator in place of vLLM: its image, and how much faster than life it starts."""

    image: str = DEFAULT_SIMULATOR_IMAGE
    speed: float = 1.0


def escape(text: str) -> str:
    """Double every `$`: Kubernetes expands `$(HF_TOKEN)` in arguments, and reads `$$` as one `$`."""
    return text.replace("$", "$$")


def unescape(text: str) -> str:
    """Undo `escape`, for an adapter that does not expand variables."""
    return text.replace("$$", "$")


def pod_name(run: str, point_hash: str, attempt: int) -> str:
    """Return the deterministic name of an attempt: `kp-<run>-<point>-a<attempt>`."""
    return f"kp-{run[:8]}-{point_hash[:10]}-a{attempt}"


@functools.cache
def _base_pod() -> dict[str, Any]:
    """Read the base pod once: a sweep renders each of its pods twice, and YAML is slow to read."""
    pod: dict[str, Any] = yaml.safe_load((shipped("manifests") / "pod.yaml").read_text(encoding="utf-8"))
    return pod


def render_pod(point: Point, run: str, attempt: int = 0, simulation: Simulation | None = None) -> PodManifest:
    """Return the pod of one attempt at a point."""
    pod = copy.deepcopy(_base_pod())
    spec = pod["spec"]
    container = spec["containers"][0]
    name = pod_name(run, point.hash, attempt)
    container["image"] = point.image if simulation is None else simulation.image
    container["args"] = [escape(word) for word in [*point.argv, "--host=0.0.0.0", f"--port={HTTP_PORT}"]]
    _environment(container["env"], point, simulation)
    _devices(container, point)
    _shared_memory(spec, container, point)
    if point.cache_claim is not None and simulation is None:
        spec["volumes"][0] = {"name": "cache", "persistentVolumeClaim": {"claimName": point.cache_claim}}
    spec["activeDeadlineSeconds"] = point.timeouts.deadline_seconds
    if (label := PRODUCT_LABELS.get(point.accelerator.resource or "")) and point.accelerator.product and not simulation:
        spec["nodeSelector"] = {label: point.accelerator.product}  # else another product is measured under its name
    _overlay(pod, container, point.overlay.fields)
    metadata = pod["metadata"]
    metadata["name"] = name
    spec_hash = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    if simulation is not None:
        metadata["labels"]["kprof.io/simulated"] = "true"
    metadata["labels"] |= {
        POINT_ID_LABEL: point.id[:63].rstrip("-."),
        RUN_LABEL: run,
        POINT_LABEL: point.hash,
        ATTEMPT_LABEL: str(attempt),
        SPEC_LABEL: spec_hash,
    }
    labels = metadata["labels"]
    return PodManifest(name, labels, pod, point.accelerator.resource, point.accelerator.count, point.queue)


def avoiding(manifest: PodManifest, nodes: Collection[str]) -> PodManifest:
    """Return the pod with a rule that keeps it off some nodes; its labels, which identify the point, stay."""
    if not nodes:
        return manifest
    body = copy.deepcopy(dict(manifest.body))
    affinity = body["spec"].setdefault("affinity", {}).setdefault("nodeAffinity", {})
    required = affinity.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    for term in required.setdefault("nodeSelectorTerms", [{}]):
        term.setdefault("matchFields", []).extend(
            {"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in sorted(nodes)
        )
    return replace(manifest, body=body)


def _environment(env: list[dict[str, Any]], point: Point, simulation: Simulation | None) -> None:
    if point.token_secret is not None and simulation is None:  # a simulator has no use for a real token
        secret, key = point.token_secret
        env.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
    own = dict(point.env)
    if simulation is not None:
        own = {
            "KPROF_SIMULATE_VERSION": point.vllm_version or DEFAULT_SIMULATED_VERSION,
            "KPROF_SIMULATE_DEVICE": point.accelerator.product or DEFAULT_DEVICE,
            "KPROF_SIMULATE_GPUS": str(point.accelerator.count),
            "KPROF_SIMULATE_SPEED": f"{simulation.speed:g}",
        } | own
    for name, value in sorted(own.items()):
        env[:] = [entry for entry in env if entry["name"] != name]
        env.append({"name": name, "value": escape(value)})


def _devices(container: dict[str, Any], point: Point) -> None:
    if point.accelerator.resource is not None:
        count = {point.accelerator.resource: str(point.accelerator.count)}
        container["resources"] = {"requests": dict(count), "limits": dict(count)}


def _shared_memory(spec: dict[str, Any], container: dict[str, Any], point: Point) -> None:
    size = point.overlay.fields.get("shmSize")
    if size is None and point.accelerator.count <= 1 and point.argument("tensor-parallel-size") in {None, 1}:
        return
    volume = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size or SHM_SIZE}}
    spec["volumes"].append(volume)
    container["volumeMounts"].append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 - the pod's own


def _overlay(pod: dict[str, Any], container: dict[str, Any], overlay: Mapping[str, Any]) -> None:
    fields: dict[str, Any] = copy.deepcopy(dict(overlay))
    metadata, spec = pod["metadata"], pod["spec"]
    metadata["labels"] = fields.pop("labels", {}) | metadata["labels"]
    if annotations := fields.pop("annotations", {}):
        metadata["annotations"] = annotations
    spec["volumes"] += fields.pop("volumes", [])
    container["volumeMounts"] += fields.pop("volumeMounts", [])
    for kind, amounts in fields.pop("resources", {}).items():
        own = container.setdefault("resources", {}).setdefault(kind, {})
        container["resources"][kind] = amounts | own  # the device count follows from the parallel sizes
    if policy := fields.pop("imagePullPolicy", None):
        container["imagePullPolicy"] = policy
    fields.pop("shmSize", None)
    if "nodeSelector" in spec:
        spec["nodeSelector"] |= fields.pop("nodeSelector", {})
    spec |= fields
