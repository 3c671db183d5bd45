"""Kueue on the fault server: a LocalQueue, and a Workload for every Job, admitted when a test says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.faults.objects import Key
from tests.faults.server import NAMESPACE, FaultServer
from tests.faults.statuses import Object

GROUP = "kueue.x-k8s.io"
VERSION = f"{GROUP}/v1beta1"
QUEUE = "team"


class Kueue:
    """Holds every Job until `admit`; `suspend` takes an admitted one back."""

    def __init__(self, server: FaultServer) -> None:
        self._server = server
        group: Object = {"name": GROUP, "preferredVersion": {"groupVersion": VERSION}}
        server.groups.append(group)
        server.objects.add(("localqueues", NAMESPACE, QUEUE), {"apiVersion": VERSION, "kind": "LocalQueue"})

    @property
    def jobs(self) -> list[Object]:
        """Return the Jobs that there are."""
        return self._server.objects.select("jobs")

    def hold(self, job: Object, words: str) -> None:
        """Say why a Job waits."""
        key, uid = _key("workloads", f"job-{job['metadata']['name']}"), job["metadata"]["uid"]
        condition = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": words}
        if not self._server.objects.has(key):
            self._server.objects.add(key, {"metadata": {"labels": {f"{GROUP}/job-uid": uid}}, "spec": {"active": True}})
        self._server.objects.patch(key, {"status": {"conditions": [condition]}})

    def admit(self, job: Object) -> None:
        """Let a Job start."""
        self._server.api.change(_key("jobs", job["metadata"]["name"]), {"spec": {"suspend": False}})

    def suspend(self, job: Object) -> None:
        """Take an admitted Job back."""
        self._server.api.change(_key("jobs", job["metadata"]["name"]), {"spec": {"suspend": True}})

    @asynccontextmanager
    async def admitting(self) -> AsyncIterator[None]:
        """Admit every Job soon after it is there, while the body runs."""

        async def admit() -> None:
            while True:
                for job in self.jobs:
                    if job["spec"].get("suspend"):
                        self.admit(job)
                await asyncio.sleep(1)

        admitting = asyncio.create_task(admit())
        try:
            yield
        finally:
            admitting.cancel()
            await asyncio.gather(admitting, return_exceptions=True)


def _key(resource: str, name: str) -> Key:
    return resource, NAMESPACE, name
