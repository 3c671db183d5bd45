"""The two places where the killed sweeps run, and what each shows of the pods that were made there."""

import json
import threading
from collections import Counter
from types import TracebackType
from typing import Protocol, Self

from tests.bed.audit import AuditLog
from tests.e2e import local_pods
from tests.e2e.command import Kprof
from tests.e2e.kube import Kube

EVERY_SECONDS = 0.02


class Place(Protocol):
    """Where pods run, and who saw them."""

    arguments: tuple[str, ...]

    def made(self) -> Counter[str]:
        """Return how many pods were made, by name."""
        ...

    def left(self) -> list[str]:
        """Return what a sweep has left."""
        ...


class ThisMachine:
    """Pods as processes: each is seen while it runs, because it runs longer than two looks are apart."""

    arguments: tuple[str, ...] = ("--on", "local")

    def __init__(self, kprof: Kprof) -> None:
        self._state = kprof.state
        self._uids: dict[str, set[str]] = {}

    def __enter__(self) -> Self:
        """Start the thread that looks."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="local-pods", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self._stop.set()
        self._thread.join(10)

    def _follow(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            for name in local_pods.pods(self._state):
                folder = self._state / "pods" / name
                try:
                    # Without a status no process ever ran: a kprof that was killed had only written the folder.
                    if "pid" in json.loads((folder / "status.json").read_text(encoding="utf-8")):
                        uid = json.loads((folder / "pod.json").read_text(encoding="utf-8"))["uid"]
                        self._uids.setdefault(name, set()).add(uid)
                except (OSError, ValueError):
                    continue  # half written, or gone again

    def made(self) -> Counter[str]:
        """Return how many pods ran, by name."""
        return Counter({name: len(uids) for name, uids in self._uids.items()})

    def left(self) -> list[str]:
        """Return pods and processes."""
        return [*local_pods.pods(self._state), *local_pods.processes(self._state)]


class TheBed:
    """Pods of a real cluster: the API server's audit log has every one that was ever made."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.arguments: tuple[str, ...] = ("-n", namespace)
        self._kube = kube
        self._namespace = namespace
        self._audit = AuditLog()

    def made(self) -> Counter[str]:
        """Return how many pods the API server made, by name."""
        return Counter(
            request.name
            for request in self._audit.requests(text=f"/namespaces/{self._namespace}/pods")
            if (request.verb, request.resource, request.code) == ("create", "pods", 201) and not request.dry
        )

    def left(self) -> list[str]:
        """Return pods, ConfigMaps and Leases."""
        return self._kube.left(self._namespace)
