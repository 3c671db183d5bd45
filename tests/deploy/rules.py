"""What every object of a deployment must keep: Pod Security, pinned images, no secrets."""

import json
import re
from collections.abc import Iterable, Iterator

import kubernetes_validate

from tests.deploy.objects import Object, Workload, workloads

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
UNSET = (None, False)
PINNED = re.compile(r"[^\s:@]+(:\d+)?(/[^\s:@]+)+(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})")
SECRETS = re.compile(r"hf_[A-Za-z0-9]{8,}|://[^/\s:@]+:[^/\s@]+@|-----BEGIN|[Bb]earer [A-Za-z0-9]")
SECRET_NAME = re.compile(r"TOKEN|PASSWORD|SECRET|API_?KEY|CREDENTIAL", re.IGNORECASE)


def baseline(workload: Workload) -> Iterator[str]:
    """Yield what Pod Security `baseline` would refuse."""
    spec = workload.spec
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield f"{workload.name}: {name}"
    for volume in spec.get("volumes", []):
        if "hostPath" in volume:
            yield f"{workload.name}: hostPath volume {volume['name']}"
    for container in workload.containers:
        context = container.get("securityContext", {})
        if context.get("privileged"):
            yield f"{workload.name}: privileged"
        if context.get("capabilities", {}).get("add"):
            yield f"{workload.name}: capabilities added"
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield f"{workload.name}: hostPort"


def restricted(workload: Workload) -> Iterator[str]:
    """Yield what Pod Security `restricted` would refuse."""
    yield from baseline(workload)
    pod = workload.spec.get("securityContext", {})
    for volume in workload.spec.get("volumes", []):
        for kind in volume.keys() - {"name"} - VOLUMES:
            yield f"{workload.name}: volume of kind {kind}"
    for container in workload.containers:
        context = container.get("securityContext", {})
        merged = pod | context
        if merged.get("runAsNonRoot") is not True or not merged.get("runAsUser"):
            yield f"{workload.name}: may run as root"
        if merged.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
            yield f"{workload.name}: no seccomp profile"
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{workload.name}: privilege escalation"
        if "ALL" not in context.get("capabilities", {}).get("drop", []):
            yield f"{workload.name}: keeps capabilities"


def beyond_restricted(workload: Workload) -> Iterator[str]:
    """Yield what kprof's own pods lack of what the project promises beside `restricted`."""
    spec = workload.spec
    if spec.get("automountServiceAccountToken") is None:
        yield f"{workload.name}: does not say whether it takes the token"
    if spec.get("serviceAccountName") in {None, "default"}:
        yield f"{workload.name}: has no account of its own"
    if spec.get("enableServiceLinks") is not False:
        yield f"{workload.name}: service links"
    for container in workload.containers:
        if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
            yield f"{workload.name}: writes to its image"
        resources = container.get("resources", {})
        for kind in ("requests", "limits"):
            if not {"cpu", "memory"} <= resources.get(kind, {}).keys():
                yield f"{workload.name}: no {kind}"


def loose_images(workload: Workload) -> Iterator[str]:
    """Yield images that have neither a fixed tag nor a digest."""
    for container in workload.containers:
        if not PINNED.fullmatch(container["image"]):
            yield f"{workload.name}: {container['image']}"


def secret_values(objects: Iterable[Object]) -> Iterator[str]:
    """Yield what holds a secret, or could."""
    for item in objects:
        name = f"{item['kind']}/{item['metadata']['name']}"
        if item["kind"] == "Secret":
            yield f"{name}: a Secret in the deployment"
        if found := SECRETS.search(json.dumps(item)):
            yield f"{name}: {found[0][:8]}..."
    for workload in workloads(objects):
        for container in workload.containers:
            for entry in container.get("env", []):
                if SECRET_NAME.search(entry["name"]) and "value" in entry:
                    yield f"{workload.name}: {entry['name']} by value"


def check(objects: list[Object]) -> None:
    """Assert all of the above for kprof's own objects, and that Kubernetes' own schemas know every field."""
    assert objects
    for item in objects:
        kubernetes_validate.validate(item, kubernetes_validate.latest_version(), strict=True)
    wrong = list(secret_values(objects))
    for workload in workloads(objects):
        wrong += [*restricted(workload), *beyond_restricted(workload), *loose_images(workload)]
    assert wrong == []
