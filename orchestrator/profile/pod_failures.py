"""What Kubernetes says went wrong with a pod, as failure kinds, and how long each may mend itself."""

import re
from dataclasses import dataclass

from orchestrator.cluster.port import Phase, PodSnapshot

# Back-off of an image pull mends itself when a registry returns; a configuration error when a Secret appears.
IMAGE_GRACE_SECONDS = 300
CONFIG_GRACE_SECONDS = 60

_WAITING = {
    "ErrImagePull": ("pod.image", IMAGE_GRACE_SECONDS),
    "ImagePullBackOff": ("pod.image", IMAGE_GRACE_SECONDS),
    "ImageInspectError": ("pod.image", IMAGE_GRACE_SECONDS),
    "InvalidImageName": ("pod.image", 0),
    "ErrImageNeverPull": ("pod.image", 0),
    "CreateContainerConfigError": ("pod.config", CONFIG_GRACE_SECONDS),
    "CreateContainerError": ("pod.config", CONFIG_GRACE_SECONDS),
    "RunContainerError": ("pod.config", CONFIG_GRACE_SECONDS),
}
_REASONS = {
    "Evicted": "pod.evicted",
    "Preempting": "pod.preempted",
    "DeadlineExceeded": "pod.deadline",
    "NodeLost": "pod.node_lost",
    "NodeShutdown": "pod.node_lost",
    "Shutdown": "pod.node_lost",
    "Terminated": "pod.node_lost",
    "UnexpectedAdmissionError": "pod.admission",
    "NodeAffinity": "pod.admission",
}
_DISRUPTIONS = {
    "PreemptionByScheduler": "pod.preempted",
    "EvictedByQueue": "pod.preempted",
    "DeletionByTaintManager": "pod.node_lost",
    "DeletionByPodGC": "pod.node_lost",
    "EvictionByEvictionAPI": "pod.evicted",
    "TerminationByKubelet": "pod.evicted",
}
REMEDIES = {
    "pod.image": "check the image's name and tag, the registry, and imagePullSecrets",
    "pod.config": "create what the message names, in the namespace of the sweep",
    "pod.unschedulable": "free devices, ask for fewer, or mend node selector and tolerations",
    "pod.quota": "raise the namespace's quota, or lower --max-gpus",
    "pod.admission": "look at the message; the same command runs the point again",
    "pod.evicted": "the node ran short of something; the same command runs the point again",
    "pod.preempted": "use a priority class, or run the same command again when the cluster is quiet",
    "pod.deadline": "raise `timeouts.startupSeconds` of the matrix",
    "pod.node_lost": "the same command runs the point again",
    "host.oom": "raise the container's memory limit (pod.resources in the matrix)",
    "interrupted": "the same command runs the point again",
    "hang": "look at the last lines of the log; raise `timeouts` if the model is only slow to load",
}


@dataclass(frozen=True, slots=True)
class PodTrouble:
    """A failure kind, the cluster's words for it, and the seconds it may last before it counts."""

    kind: str
    message: str
    grace_seconds: int = 0


# 0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: 3 Preemption is not
# helpful for scheduling.
_NODES = re.compile(r"\b0/(\d{1,6}) nodes are available")
# Of a cluster without nodes; of Kueue, when quota, queue or workload must be changed first.
_NEVER = (
    "no nodes available to schedule pods",
    "> maximum capacity",
    "unavailable in ClusterQueue",
    "the workload is deactivated",
)
_NOT_HELPFUL = re.compile(r"\b(\d{1,6}) Preemption is not helpful for scheduling")


def fits_nowhere(unschedulable: str) -> bool:
    """Say whether the scheduler's or Kueue's words mean that the pod would wait for ever, even with all others gone.

    Kubernetes asks on each node whether evicting pods would help; newer ones answer no where the pod asks for more
    than the node has, all where taints or selectors keep it away.
    """
    if any(words in unschedulable for words in _NEVER):
        return True
    nodes, hopeless = _NODES.search(unschedulable), _NOT_HELPFUL.search(unschedulable)
    return nodes is not None and hopeless is not None and nodes[1] == hopeless[1]


def pod_trouble(pod: PodSnapshot | None, followed: str | None = None) -> PodTrouble | None:
    """Say what is wrong with a pod by its status alone; None when nothing is, or only the log can tell.

    `followed` is the name of the pod whose log is being read: a Job may run another one by now.
    """
    if pod is None:
        return PodTrouble("pod.node_lost", "the pod was deleted by somebody else, or its node is gone")
    if followed is not None and pod.runs_as not in {None, followed}:
        words = f"Kueue took pod {followed} back and admitted its Job again while nobody saw: it runs {pod.runs_as} now"
        return PodTrouble("pod.preempted", words)
    if pod.disruption in _DISRUPTIONS and (pod.deleting or pod.finished):
        return PodTrouble(_DISRUPTIONS[pod.disruption], f"{pod.disruption}: {pod.message or pod.reason}")
    if pod.phase is Phase.FAILED and pod.reason:
        kind = _REASONS.get(pod.reason, "pod.admission" if pod.reason.startswith("OutOf") else None)
        if kind is not None:
            return PodTrouble(kind, f"{pod.reason}: {pod.message}")
        if pod.container is None:
            # The kubelet refused it: TopologyAffinityError, OutOfnvidia.com/gpu and whatever comes.
            return PodTrouble("pod.admission", f"{pod.reason}: {pod.message}")
    if pod.deleting:
        return PodTrouble("pod.evicted", "the pod was deleted by somebody else")
    container = pod.container
    if container is None:
        return None
    if container.restarts:
        words = f"the container was restarted ({container.restarts} times); what was measured before is void"
        return PodTrouble("interrupted", words)
    if container.state == "waiting" and container.reason in _WAITING:
        kind, grace = _WAITING[container.reason]
        return PodTrouble(kind, f"{container.reason}: {container.message}", grace)
    if container.state == "terminated":
        if container.reason in {"Unknown", "ContainerStatusUnknown"}:
            # The kubelet found the container gone when it came back: its node was started anew.
            words = f"{container.reason}: the node lost the container, as when it is rebooted"
            return PodTrouble("pod.node_lost", words)
        if container.reason == "OOMKilled":
            return PodTrouble("host.oom", "OOMKilled: the container went over its memory limit")
        if container.reason in {"StartError", "ContainerCannotRun"}:
            return PodTrouble("pod.config", f"{container.reason}: {container.message}")
    return None
