"""The store read with bare SQL, so that the store's own code cannot hide anything."""

import json
import sqlite3
import zlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUSY_SECONDS = 30.0


@dataclass(frozen=True)
class Result:
    """One row of results, by point id."""

    point: str
    attempt: int
    recorded_at: str
    document: dict[str, Any]


@dataclass(frozen=True)
class Attempt:
    """One row of attempts: the pod that was made for it, and whether its result is there."""

    point_hash: str
    attempt: int
    pod: str
    uid: str | None
    ended: bool


def _rows(store: Path, query: str) -> list[tuple[Any, ...]]:
    if not store.exists():
        return []
    with closing(sqlite3.connect(store, timeout=BUSY_SECONDS)) as connection:
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []  # kprof has just begun
            raise


def results(store: Path) -> list[Result]:
    """Return every result of every run."""
    rows = _rows(
        store,
        "select p.id, r.attempt, r.recorded_at, r.document from results r"
        " join points p on p.run_id = r.run_id and p.hash = r.hash order by p.position",
    )
    return [Result(row[0], row[1], row[2], json.loads(row[3])) for row in rows]


def attempts(store: Path) -> list[Attempt]:
    """Return every attempt of every run."""
    return [
        Attempt(row[0], row[1], row[2], row[3], bool(row[4]))
        for row in _rows(store, "select hash, attempt, pod, uid, ended from attempts")
    ]


def runs(store: Path) -> list[str]:
    """Return the ids of all runs."""
    return [row[0] for row in _rows(store, "select id from runs")]


def logs(store: Path) -> bytes:
    """Return every stored log, decompressed, one after another."""
    return b"\n".join(zlib.decompressobj().decompress(row[0]) for row in _rows(store, "select log from evidence"))


def raw_bytes(store: Path) -> bytes:
    """Return the bytes of the store's file and of those that SQLite keeps beside it."""
    return b"".join(path.read_bytes() for path in sorted(store.parent.glob(f"{store.name}*")))
