"""The faults that kprof answers for: a number for life, what happens, and how it is seen."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One fault; numbers are never given twice."""

    number: int
    fault: str
    seen: str


def _entries(*rows: tuple[str, str]) -> tuple[CatalogueEntry, ...]:
    return tuple(CatalogueEntry(number, *row) for number, row in enumerate(rows, 1))


CATALOGUE = _entries(
    ("the API server restarts", "connections refused or reset, then 410 Expired"),
    ("too many requests", "429 as plain text with Retry-After"),
    ("server errors, a change of etcd's leader", "500, 503 or 504 as a Status, 502 as HTML, half an answer"),
    ("a black hole, a sleeping laptop", "no bytes at all"),
    ("a version is too old", "410, or an ERROR event of 410"),
    ("a version of the future", "504 Timeout with the cause ResourceVersionTooLarge"),
    ("a log stream is cut", "half a line, or a clean end while the container runs"),
    ("a log is rotated", "silence, or missing lines"),
    ("a kubelet does not answer", "500 `dial tcp` for the log, Ready=False, the phase stays Running"),
    ("a node is lost", "the node is unreachable; with all nodes down the pod stays Running"),
    ("a node is deleted", "the pod is gone, or DisruptionTarget DeletionByPodGC"),
    ("a pod is evicted", "phase Failed with reason Evicted, or DisruptionTarget"),
    ("a pod is preempted", "DisruptionTarget PreemptionByScheduler, a deletionTimestamp"),
    ("the host is out of memory", "terminated with OOMKilled, exit code 137"),
    ("the device is out of memory", "`CUDA out of memory` in the log"),
    ("an image cannot be pulled", "waiting with ErrImagePull, ImagePullBackOff, InvalidImageName, ErrImageNeverPull"),
    ("a Secret or a key of it is missing", "404 for the Secret, or waiting with CreateContainerConfigError"),
    ("a container cannot be started", "CreateContainerError, RunContainerError, StartError"),
    ("no node takes the pod", "PodScheduled=False with reason Unschedulable"),
    ("a quota is used up", "403 `exceeded quota`"),
    ("a LimitRange forbids the pod", "403 `maximum memory usage per Container`"),
    ("PodSecurity forbids the pod", "403 `violates PodSecurity`"),
    ("a right is missing", "403 `cannot create resource`, or a review that says no"),
    ("a webhook denies, or does not answer", "403 `denied the request`, or 500 `failed calling webhook`"),
    ("a namespace is missing or ends", "404, or 403 with the cause NamespaceTerminating"),
    ("Kueue holds or takes back a workload", "a suspended Job, scheduling gates, an eviction"),
    ("a pod hangs in Terminating", "a deletionTimestamp longer ago than the grace period"),
    ("a finalizer holds a pod", "a deletionTimestamp and finalizers"),
    ("a container was restarted", "restartCount above zero"),
    ("a pod's name is taken", "409 AlreadyExists, also `object is being deleted`"),
    ("clocks differ", "time stamps of the future, the answers' Date"),
    ("SIGTERM", "the signal"),
    ("SIGKILL, power loss", "nothing"),
    ("two kprofs on one run", "a Lease that another one holds, or took over"),
    ("the store is full or locked", "SQLITE_FULL, SQLITE_BUSY, write errors"),
    ("a matrix or a store is damaged", "errors of parsing"),
    ("odd bytes, giant lines", "NUL, no UTF-8, carriage returns, lines of 20 MB"),
    ("secrets in a log", "tokens and keys in lines"),
    ("/metrics or /health fails", "HTTP errors of the pod"),
    ("a model is downloaded for long", "no line for many minutes"),
    ("a start-up hangs", "no line for longer than `stallSeconds`"),
    ("a GPU fails", "Xid or `CUDA error` in the log, UnexpectedAdmissionError"),
    ("a collective operation hangs", "`Watchdog caught collective operation timeout`, or silence"),
    ("a kubelet refuses a pod", "phase Failed with OutOfnvidia.com/gpu, NodeAffinity or Terminated, no container"),
    ("a pod's deadline passes", "phase Failed with DeadlineExceeded"),
    ("a finished pod is collected", "404 for a pod that ended"),
    ("a list is falsely empty", "200 without items"),
    ("the log of a pod that waits", "200 with an empty log"),
)
