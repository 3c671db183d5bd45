"""The nodes' side: each pod is played by a script, which moves its status and prints its log."""

import asyncio
import datetime
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from orchestrator.cluster.port import CONTAINER
from tests.faults.objects import Key, Objects, now
from tests.faults.statuses import Object

Script = Callable[["PodPlay"], Awaitable[None]]
Http = Callable[[str, str, bytes], tuple[int, AsyncIterator[bytes]]]
NODE = "node-1"
GPUS = 8


def node(name: str = NODE, gpus: int = GPUS) -> Object:
    """Return a healthy node with GPUs."""
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now()}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {},
        "status": {"allocatable": {"cpu": "64", "nvidia.com/gpu": str(gpus)}, "conditions": [ready]},
    }


class PodPlay:
    """One pod as its kubelet sees it; every method shows at the API server at once."""

    def __init__(self, objects: Objects, key: Key, uid: str) -> None:
        self._objects = objects
        self.key = key
        self.uid = uid
        self.lines: list[tuple[str, bytes]] = []  # stamp and line, its line feed included when it has one
        self.http: Http | None = None
        self.port: int | None = None  # of a real server on loopback
        self._said = asyncio.Event()

    @property
    def object(self) -> Object:
        """Return the pod as it is now."""
        return self._objects.get(self.key)

    @property
    def exists(self) -> bool:
        """Say whether the pod is there, and not another one of its name."""
        return self._objects.has(self.key) and self.object["metadata"]["uid"] == self.uid

    @property
    def state(self) -> str:
        """Return the container's state; empty when the kubelet has not told of it."""
        statuses = (self.object.get("status") or {}).get("containerStatuses") if self.exists else None
        return next(iter(statuses[0]["state"]), "") if statuses else ""

    def schedule(self, on: str = NODE) -> None:
        """Put the pod on a node."""
        self._objects.patch(self.key, {"spec": {"nodeName": on}})
        self.condition("PodScheduled", "True")

    def unschedulable(self, words: str) -> None:
        """Say why no node takes the pod."""
        self.condition("PodScheduled", "False", "Unschedulable", words)

    def wait(self, reason: str, words: str = "") -> None:
        """Leave the container waiting."""
        self._container("Pending", {"waiting": {"reason": reason, "message": words}})

    def run(self) -> None:
        """Start the container."""
        if not self.object["spec"].get("nodeName"):
            self.schedule()
        self._container("Running", {"running": {"startedAt": now()}})

    def exit(self, code: int, reason: str = "", words: str = "") -> None:
        """End the container."""
        detail = {"exitCode": code, "reason": reason or ("Error" if code else "Completed"), "message": words}
        self._container("Failed" if code else "Succeeded", {"terminated": detail})
        self._wake()

    def fail(self, reason: str, words: str = "") -> None:
        """Let the kubelet fail the pod as a whole; a container that ran ends with it, told in the same breath."""
        changes: Object = {"phase": "Failed", "reason": reason, "message": words}
        if self.state == "running":
            changes["containerStatuses"] = [_container({"terminated": {"exitCode": 137, "reason": "Error"}})]
        self._status(changes)
        self._wake()

    def condition(self, kind: str, status: str, reason: str = "", words: str = "") -> None:
        """Set one condition."""
        known = [c for c in (self.object.get("status") or {}).get("conditions") or [] if c["type"] != kind]
        self._status({"conditions": [*known, {"type": kind, "status": status, "reason": reason, "message": words}]})

    def disrupt(self, reason: str, words: str) -> None:
        """Announce the end of the pod and mark it for deletion, as what evicts or preempts a pod does."""
        self.condition("DisruptionTarget", "True", reason, words)
        self._objects.patch(self.key, {"metadata": {"deletionTimestamp": now(), "deletionGracePeriodSeconds": 30}})

    def restart(self) -> None:
        """Let the kubelet start the container once more."""
        status = self.object["status"]["containerStatuses"][0]
        self._status({"containerStatuses": [{**status, "restartCount": status["restartCount"] + 1}]})

    def vanish(self) -> None:
        """Take the pod away without anybody having asked for it, as the garbage collector of pods does."""
        self._objects.remove(self.key)
        self._wake()

    def say(self, data: bytes, seconds: float = 0.0) -> None:
        """Print, stamped so many seconds from now; text after the last line feed is a line that is not finished."""
        at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        stamp = at.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
        for line in _lines(data):
            if self.lines and not self.lines[-1][1].endswith(b"\n"):
                first, begun = self.lines.pop()
                self.lines.append((first, begun + line))
            else:
                self.lines.append((stamp, line))
        self._wake()

    def rotate(self) -> None:
        """Lose the log so far, as a rotation does."""
        self.lines.clear()
        self._wake()

    def more(self) -> asyncio.Event:
        """Return what is set when something is printed next, or the container ends."""
        return self._said

    async def forever(self) -> None:
        """Go on until the pod is deleted."""
        await asyncio.get_running_loop().create_future()

    def _container(self, phase: str, state: Object) -> None:
        self._status({"phase": phase, "containerStatuses": [_container(state)]})

    def _status(self, changes: Object) -> None:
        if self.exists:
            self._objects.patch(self.key, {"status": changes})

    def _wake(self) -> None:
        said, self._said = self._said, asyncio.Event()
        said.set()


def _container(state: Object) -> Object:
    return {"name": CONTAINER, "state": state, "ready": False, "restartCount": 0, "image": "", "imageID": ""}


def _lines(data: bytes) -> list[bytes]:
    *whole, rest = data.split(b"\n")
    return [line + b"\n" for line in whole] + ([rest] if rest else [])


class Kubelet:
    """Plays every pod that appears; `script` is what a new pod does, `stuck` lets no deleted pod go."""

    def __init__(self, objects: Objects, script: Script) -> None:
        self._objects = objects
        self.script = script
        self.stuck = False
        self.plays: dict[str, PodPlay] = {}  # by uid
        self.history: list[PodPlay] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def take(self, key: Key) -> None:
        """Play a new pod."""
        uid = self._objects.get(key)["metadata"]["uid"]
        play = self.plays[uid] = PodPlay(self._objects, key, uid)
        self.history.append(play)
        self._tasks[uid] = asyncio.create_task(self._live(play), name=f"pod {key[2]}")

    async def _live(self, play: PodPlay) -> None:
        await self.script(play)

    def play_of(self, namespace: str, name: str) -> PodPlay | None:
        """Return the play of the pod that has a name now."""
        key = ("pods", namespace, name)
        return self.plays.get(self._objects.get(key)["metadata"]["uid"]) if self._objects.has(key) else None

    async def end(self, uid: str) -> None:
        """End a pod's script, and whatever it started; a failure of the script is the test's."""
        task = self._tasks.pop(uid, None)
        if task is None:
            return
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def close(self) -> None:
        """End every pod."""
        for uid in list(self._tasks):
            await self.end(uid)
