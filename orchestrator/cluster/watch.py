"""The run's pods as last seen, kept up to date by one watch that all points share."""

import asyncio
from collections.abc import Callable
from typing import Self

from orchestrator.cluster.port import Cluster, PodSnapshot


class PodWatch:
    """Follows `cluster.changes(run)` in the background; `wait_for` sleeps until a pod satisfies a predicate."""

    def __init__(self, cluster: Cluster, run: str) -> None:
        self._cluster = cluster
        self._run = run
        self._pods: dict[str, PodSnapshot] = {}
        self._gone: set[str] = set()
        self._changed = asyncio.Event()
        self._synced = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow(), name="pod-watch")
        synced = asyncio.create_task(self._synced.wait())
        await asyncio.wait({self._task, synced}, return_when=asyncio.FIRST_COMPLETED)
        synced.cancel()
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def pods(self) -> list[PodSnapshot]:
        """Return every pod of the run that exists."""
        return list(self._pods.values())

    def saw(self, pod: PodSnapshot) -> None:
        """Note a pod that was just created, so that nobody takes it for gone before the watch tells of it."""
        if pod.uid not in self._gone:
            self._pods.setdefault(pod.uid, pod)

    def get(self, uid: str) -> PodSnapshot | None:
        """Return a pod by uid; None when it is gone."""
        return self._pods.get(uid)

    async def wait_for(self, uid: str, predicate: Callable[[PodSnapshot | None], bool]) -> PodSnapshot | None:
        """Wait until the predicate holds for the pod (None when it is gone) and return it as it was then."""
        while True:
            pod = self._pods.get(uid)
            if predicate(pod):
                return pod
            changed = self._changed
            if self._task is not None and self._task.done():
                self._task.result()
            await changed.wait()

    async def _follow(self) -> None:
        try:
            async for change in self._cluster.changes(self._run):
                if change.listing is not None:
                    await self._relist({pod.uid: pod for pod in change.listing})
                    self._synced.set()
                elif change.pod is not None and change.deleted:
                    self._pods.pop(change.pod.uid, None)
                    self._gone.add(change.pod.uid)
                elif change.pod is not None:
                    self._pods[change.pod.uid] = change.pod
                self._notify()
        finally:
            self._notify()

    async def _relist(self, listed: dict[str, PodSnapshot]) -> None:
        # A listing may be older than a pod that was just created, or falsely empty: ask for each missing pod by name.
        known = set(self._pods)
        for uid, pod in [(uid, pod) for uid, pod in self._pods.items() if uid not in listed]:
            now = await self._cluster.get(pod.name)
            if now is not None and now.uid == uid:
                listed[uid] = now
            else:
                self._gone.add(uid)
        created_meanwhile = {uid: pod for uid, pod in self._pods.items() if uid not in known}
        self._pods = listed | created_meanwhile

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
