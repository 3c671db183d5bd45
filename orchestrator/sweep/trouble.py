"""What the cluster's troubles mean for the rest of a sweep: try a point again, avoid a node, stop early."""

from collections import Counter

from orchestrator.profile.result import PointResult

# Kinds that speak of the cluster and not of the configuration: the same command tries these points again.
CLUSTER_TROUBLE = "pod."
# What the log tells of the device, of whoever else uses it, of the model's server, or of a signal.
NOT_THE_CONFIGURATION = frozenset({"gpu.hardware", "gpu.busy", "model.unreachable", "interrupted"})
# How often one point is tried again within one sweep, for kinds that mend themselves elsewhere or later.
RETRIES = {"pod.evicted": 2, "pod.preempted": 5, "pod.node_lost": 1, "pod.admission": 2, "gpu.hardware": 1}
ALIKE_LIMIT = 3  # the same trouble on so many points, one after the other, means that every point has it
MANY_POINTS = 6  # of which more than half with the same trouble mean that, too
FAULTS_OF_A_NODE = 2


def of_cluster(kind: str | None) -> bool:
    """Say whether a failure kind blames the cluster."""
    return kind is not None and (kind.startswith(CLUSTER_TROUBLE) or kind in NOT_THE_CONFIGURATION)


class Troubles:
    """Follows the results of one sweep."""

    def __init__(self) -> None:
        self._tried: Counter[tuple[str, str]] = Counter()
        self._faults: Counter[str] = Counter()
        self._ended = 0
        self._kinds: Counter[str] = Counter()
        self._alike: list[str] = []
        self.earlier: dict[str, str] = {}  # by point hash: the kind in which its attempt before ended

    @property
    def avoided(self) -> frozenset[str]:
        """Return the nodes whose devices failed more than once: a node that fails fast draws every point to it."""
        return frozenset(node for node, count in self._faults.items() if count >= FAULTS_OF_A_NODE)

    def again(self, result: PointResult) -> bool:
        """Note an attempt that ended, and say whether its point deserves another one now."""
        failure = result.failure
        if failure is None:
            return False
        refused_by_kubelet = failure.kind == "pod.admission" and result.node is not None
        if result.node is not None and (failure.kind == "gpu.hardware" or refused_by_kubelet):
            self._faults[result.node] += 1
        if result.adopted and of_cluster(failure.kind):
            # It ended while no kprof looked, which says nothing of today. The next attempt is this sweep's own.
            self.earlier[result.point_hash] = failure.kind
            return True
        if failure.kind == "pod.admission" and not refused_by_kubelet:
            return False  # a webhook or a policy would say the same again
        key = result.point_hash, failure.kind
        self._tried[key] += 1
        if self._tried[key] > RETRIES.get(failure.kind, 0):
            return False
        self.earlier[result.point_hash] = failure.kind
        return True

    def stop(self, result: PointResult) -> str | None:
        """Note a point's last result of this sweep; returns why no further point would fare better."""
        self._ended += 1
        failure = result.failure
        if failure is None or not of_cluster(failure.kind):
            self._alike.clear()
            return None
        self._kinds[failure.kind] += 1
        self._alike.append(failure.kind)
        words = f"{failure.kind}: {failure.line}"
        if len(self._alike) >= ALIKE_LIMIT and len(set(self._alike)) == 1:
            which = "first" if len(self._alike) == self._ended else "last"
            return f"the {which} {len(self._alike)} points failed alike: {words}"
        if self._ended >= MANY_POINTS and self._kinds[failure.kind] * 2 > self._ended:
            return f"{self._kinds[failure.kind]} of {self._ended} points failed alike: {words}"
        return None
