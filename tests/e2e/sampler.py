"""Looks at every pod of the cluster a few times a second, through the API, while something else happens."""

import http.client
import json
import subprocess
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.e2e.kube import GPU, Kube, Object

EVERY_SECONDS = 0.2
_LIVE = frozenset({"Pending", "Running", "Unknown"})


def gpus_of(pod: Object) -> int:
    """Return the GPUs that a pod requests."""
    containers = pod["spec"]["containers"]
    return sum(int((item.get("resources", {}).get("requests") or {}).get(GPU, "0")) for item in containers)


@dataclass(frozen=True)
class Sample:
    """One look: GPUs of live pods that have a node, and of live pods of one namespace, placed or not."""

    placed_gpus: int
    own_gpus: int
    own_pods: int


@dataclass
class PodSampler:
    """Keeps one sample for each look, the uids of every pod ever seen by point, and each pod as last seen."""

    kube: Kube
    namespace: str
    samples: list[Sample] = field(default_factory=list)
    uids: dict[str, set[str]] = field(default_factory=dict)
    ended: dict[str, set[str]] = field(default_factory=dict)
    pods: dict[str, Object] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Start the API proxy of kubectl and the thread that asks it."""
        self._stop = threading.Event()
        self._proxy = subprocess.Popen(self.kube.command("proxy", "--port=0"), stdout=subprocess.PIPE, text=True)
        assert self._proxy.stdout is not None
        self._port = int(self._proxy.stdout.readline().rsplit(":", 1)[1])
        self._thread = threading.Thread(target=self._follow, name="pod-sampler", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop both; a sampler that could not look proves nothing and says so."""
        self._stop.set()
        self._thread.join(10)
        self._proxy.terminate()
        self._proxy.wait(10)
        if self._proxy.stdout is not None:
            self._proxy.stdout.close()
        if error is None:
            assert not self.trouble, self.trouble
            assert self.samples, "the sampler never got an answer"

    def _follow(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            while not self._stop.is_set():
                begin = time.monotonic()
                self._look(connection)
                self._stop.wait(max(0.0, EVERY_SECONDS - (time.monotonic() - begin)))
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.trouble.append(f"{type(error).__name__}: {error}")
        finally:
            connection.close()

    def _look(self, connection: http.client.HTTPConnection) -> None:
        connection.request("GET", "/api/v1/pods")
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        placed = own = count = 0
        for pod in answer["items"]:
            live, gpus = pod["status"].get("phase") in _LIVE, gpus_of(pod)
            placed += gpus if live and pod["spec"].get("nodeName") else 0
            if pod["metadata"]["namespace"] == self.namespace:
                own += gpus if live else 0
                count += live
                self._keep(pod)
        self.samples.append(Sample(placed, own, count))

    def _keep(self, pod: Object) -> None:
        uid, point = pod["metadata"]["uid"], pod["metadata"].get("labels", {}).get("kprof.io/point", "")
        self.pods[uid] = pod
        self.uids.setdefault(point, set()).add(uid)
        for status in pod["status"].get("containerStatuses") or []:
            if "terminated" in status["state"] and not pod["metadata"].get("deletionTimestamp"):
                self.ended.setdefault(point, set()).add(uid)
