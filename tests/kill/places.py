"""The two places where the killed sweeps run, and what each shows of the pods that were made there."""

from collections import Counter
from pathlib import Path
from typing import Protocol

from tests.bed.audit import AuditLog
from tests.e2e import stored
from tests.e2e.kube import Kube
from tests.e2e.local_pods import LocalSampler, lasting_processes, pods


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
    """Pods as processes."""

    arguments: tuple[str, ...] = ("--on", "local")

    def __init__(self, sampler: LocalSampler, store: Path) -> None:
        self._sampler = sampler
        self._store = store

    def made(self) -> Counter[str]:
        """Return how many pods ran, by name: those that were seen, and one that lived between two looks."""
        made = {name: set(uids) for name, uids in self._sampler.by_name.items()}
        for attempt in stored.attempts(self._store):
            if attempt.uid:
                made.setdefault(attempt.pod, set()).add(attempt.uid)
        return Counter({name: len(uids) for name, uids in made.items()})

    def left(self) -> list[str]:
        """Return pods and processes."""
        return [*pods(self._sampler.state), *lasting_processes(self._sampler.state)]


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
