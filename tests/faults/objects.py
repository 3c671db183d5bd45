"""What the API server keeps: objects with versions, and the history that watches are served from."""

import asyncio
import copy
import datetime
import json
import uuid
from dataclasses import dataclass

from tests.faults.selection import matches
from tests.faults.statuses import Object, already_exists, conflict, not_found

Key = tuple[str, str, str]  # resource, namespace (empty for what has none), name


def now() -> str:
    """Return the wall clock as the API server writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one object."""

    version: int
    type: str
    key: Key
    object: Object


class Objects:
    """Every object of the cluster; each write makes a new version and wakes the watches."""

    def __init__(self) -> None:
        self.version = 1000
        self.oldest = 0  # watches from an older version are refused
        self.history: list[Event] = []
        self._objects: dict[Key, Object] = {}
        self._changed = asyncio.Event()

    def get(self, key: Key) -> Object:
        """Return an object; raises Refusal 404."""
        if key not in self._objects:
            raise not_found(key[0], key[2])
        return self._objects[key]

    def has(self, key: Key) -> bool:
        """Say whether there is such an object."""
        return key in self._objects

    def select(self, resource: str, namespace: str = "", labels: str = "", fields: str = "") -> list[Object]:
        """Return the selected objects of one namespace, or of all, by name."""
        return [
            item
            for key, item in sorted(self._objects.items())
            if key[0] == resource and namespace in {"", key[1]} and matches(item, labels, fields)
        ]

    def names(self) -> list[Key]:
        """Return the key of every object."""
        return list(self._objects)

    def add(self, key: Key, item: Object, agent: str = "test") -> Object:
        """Store a new object; raises Refusal 409 when the name is taken."""
        if key in self._objects:
            raise already_exists(key[0], key[2], deleting="deletionTimestamp" in self._objects[key]["metadata"])
        made = complete(key, item, agent)
        self._write("ADDED", key, made)
        return made

    def replace(self, key: Key, item: Object, agent: str = "test") -> Object:
        """Store another version of an object; raises Refusal 409 when it is not based on the present one."""
        present = self.get(key)
        based_on = item["metadata"].get("resourceVersion")
        if based_on not in {None, "", present["metadata"]["resourceVersion"]}:
            raise conflict(key[0], key[2], "the object has been modified; please apply your changes to the latest")
        changed = copy.deepcopy(item)
        for name in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
            if name in present["metadata"]:
                changed["metadata"][name] = present["metadata"][name]
        changed["metadata"]["managedFields"] = _managed(agent)
        self._write("MODIFIED", key, changed)
        return changed

    def patch(self, key: Key, changes: Object, agent: str = "test") -> Object:
        """Merge changes into an object; None takes a field away."""
        return self.replace(key, merged(self.get(key), changes), agent)

    def remove(self, key: Key) -> Object:
        """Take an object away for good."""
        item = self.get(key)
        del self._objects[key]
        self._note("DELETED", key, copy.deepcopy(item))
        return item

    def forget_history(self) -> None:
        """Know no version but the present one, as after a restart."""
        self.version += 1
        self.oldest = self.version
        self.history.clear()

    def next_change(self) -> asyncio.Event:
        """Return what is set by the next write."""
        return self._changed

    def _write(self, kind: str, key: Key, item: Object) -> None:
        self._objects[key] = item
        self._note(kind, key, item)

    def _note(self, kind: str, key: Key, item: Object) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self.history.append(Event(self.version, kind, key, copy.deepcopy(item)))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def complete(key: Key, item: Object, agent: str) -> Object:
    """Return a new object with what the server adds to its metadata."""
    made = copy.deepcopy(item)
    given = made.setdefault("metadata", {})
    given.update(name=key[2], uid=str(uuid.uuid4()), creationTimestamp=now(), managedFields=_managed(agent))
    if key[1]:
        given["namespace"] = key[1]
    return made


def merged(item: Object, changes: Object) -> Object:
    """Return an object with a JSON merge patch applied."""
    result = json.loads(json.dumps(item))
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            result[name] = merged(result.get(name) or {}, value)
        else:
            result[name] = value
    return dict(result)


def _managed(agent: str) -> list[Object]:
    return [{"manager": agent, "operation": "Update", "apiVersion": "v1", "time": now(), "fieldsType": "FieldsV1"}]
