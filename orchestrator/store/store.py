"""The store's door: every write is one transaction, committed to disk before it returns."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, inspect, select
from sqlalchemy.exc import DBAPIError

from orchestrator import __version__
from orchestrator.matrix.point import Point
from orchestrator.store import tables as t
from orchestrator.store.database import Database, StoreError
from orchestrator.store.records import RunRecord, StoredPoint, StoredResult, point_of, result_of, row_of, run_of
from orchestrator.store.values import count

NUMBER_DIGITS = 9
MIN_DIGITS_OF_ID = 4  # fewer digits are a run's number, never the start of an id
_SIZES = ("weights_gib", "activation_gib", "non_torch_gib", "cuda_graph_gib", "kv_cache_gib")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """Runs, points and results. Raises StoreError when the file cannot be read or written."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.name = database.name
        with self._reading() as connection:
            found = set(inspect(connection).get_table_names())
        if not found:
            with self._transaction() as connection:
                t.metadata.create_all(connection)
                version = self._database.insert(t.meta).values(key="schema_version", value=str(t.SCHEMA_VERSION))
                connection.execute(version.on_conflict_do_nothing())
        with self._reading() as connection:
            written = self._schema_version(connection)
        if written is None:
            raise StoreError(f"{self.name} is a database of another program", remedy="use another --store")
        if written != str(t.SCHEMA_VERSION):
            raise StoreError(
                f"{self.name} has schema version {written}, this kprof writes {t.SCHEMA_VERSION}",
                remedy="use the kprof version that wrote it, or another --store",
            )

    def _schema_version(self, connection: Connection) -> str | None:
        known = inspect(connection)
        if t.meta.name not in known.get_table_names():
            return None
        # Others have tables of this name too.
        if {column["name"] for column in known.get_columns(t.meta.name)} != set(t.meta.c.keys()):
            return None
        return connection.scalar(select(t.meta.c.value).where(t.meta.c.key == "schema_version"))

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    @contextmanager
    def _transaction(self, *, reading: bool = False) -> Iterator[Connection]:
        try:
            with self._database.transaction(reading=reading) as connection:
                yield connection
        except DBAPIError as error:
            raise self._database.failure(error) from error

    def _reading(self) -> AbstractContextManager[Connection]:
        return self._transaction(reading=True)

    # Runs

    def create_run(
        self,
        run_id: str,
        matrix: str,
        digest: str,
        cluster: str,
        source: str,
        points: Sequence[Point],
        *,
        since: int | None = None,
    ) -> RunRecord:
        """Record a new run and its points before anything of it is created.

        With `since`, a run's number, return an unfinished one of the same matrix, cluster and source instead when
        another kprof has recorded it after that number: of two that start at once one makes the run.
        """
        r = t.runs.c
        same = (r.digest == digest) & (r.cluster == cluster) & (r.source == source) & r.finished_at.is_(None)
        with self._transaction() as connection:
            if since is not None:
                newest = select(t.runs).where(same & (r.number > since)).order_by(r.number.desc()).limit(1)
                if (made := connection.execute(newest).mappings().first()) is not None:
                    return run_of(made)
            number = (connection.scalar(select(func.max(t.runs.c.number))) or 0) + 1
            record = RunRecord(run_id, number, matrix, digest, cluster, source, _now(), None)
            connection.execute(
                t.runs.insert().values(
                    id=run_id,
                    number=number,
                    matrix=matrix,
                    digest=digest,
                    cluster=cluster,
                    source=source,
                    kprof_version=__version__,
                    created_at=record.created_at,
                )
            )
            connection.execute(t.points.insert(), [row_of(run_id, i, point) for i, point in enumerate(points)])
        return record

    def latest_run(
        self, digest: str | None = None, cluster: str | None = None, source: str | None = None
    ) -> RunRecord | None:
        """Return the newest run that fits, None when there is none."""
        query = select(t.runs).order_by(t.runs.c.number.desc()).limit(1)
        for column, value in ((t.runs.c.digest, digest), (t.runs.c.cluster, cluster), (t.runs.c.source, source)):
            if value is not None:
                query = query.where(column == value)
        return self._run(query)

    def run(self, name: str) -> RunRecord | None:
        """Return a run by number, by id, or by the start of its id."""
        if name.isdecimal() and len(name) <= NUMBER_DIGITS:
            numbered = self._run(select(t.runs).where(t.runs.c.number == int(name)))
            if numbered is not None or len(name) < MIN_DIGITS_OF_ID:
                return numbered
        # In any case of letters, which is how SQLite compares.
        begins = t.runs.c.id.istartswith(name, autoescape=True)
        return self._run(select(t.runs).where(begins).order_by(t.runs.c.number).limit(1))

    def _run(self, query: Any) -> RunRecord | None:
        with self._reading() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else run_of(row)

    @contextmanager
    def driving(self, run: RunRecord) -> Iterator[None]:
        """Hold a run against other kprofs; raises RunDrivenError when one drives it already.

        The lock is given back when its holder dies, however it dies.
        """
        with self._database.driving(run):
            yield

    def runs(self) -> list[RunRecord]:
        """Return every run, oldest first."""
        with self._reading() as connection:
            return [run_of(row) for row in connection.execute(select(t.runs).order_by(t.runs.c.number)).mappings()]

    def finish_run(self, run_id: str) -> None:
        """Note that every point of the run has its result."""
        with self._transaction() as connection:
            connection.execute(t.runs.update().where(t.runs.c.id == run_id).values(finished_at=_now()))

    def describe_points(self, run_id: str, points: Sequence[Point]) -> None:
        """Take over ids, labels and expectations of an edited matrix: none of them changes what runs."""
        p = t.points.c
        with self._transaction() as connection:
            for place, point in enumerate(points):
                # Ids are unique in a run, and two points may have swapped theirs.
                where = (p.run_id == run_id) & (p.hash == point.hash)
                connection.execute(t.points.update().where(where).values(id=f"#{place}"))
            for point in points:
                where = (p.run_id == run_id) & (p.hash == point.hash)
                values = {"id": point.id, "label": point.label, "expect": point.expect}
                connection.execute(t.points.update().where(where).values(**values))

    # Attempts and results

    def intend(self, run_id: str, point_hash: str, pod_name: str, attempt: int) -> None:
        """Record the intent to create a pod, before it is created."""
        with self._transaction() as connection:
            values = {"run_id": run_id, "hash": point_hash, "attempt": attempt, "pod": pod_name, "intended_at": _now()}
            connection.execute(self._database.insert(t.attempts).values(**values, ended=False).on_conflict_do_nothing())

    def created(self, run_id: str, point_hash: str, attempt: int, uid: str) -> None:
        """Record the uid of the pod that was created."""
        self._attempt(run_id, point_hash, attempt, uid=uid)

    def _attempt(self, run_id: str, point_hash: str, attempt: int, **values: Any) -> None:
        a = t.attempts.c
        with self._transaction() as connection:
            where = (a.run_id == run_id) & (a.hash == point_hash) & (a.attempt == attempt)
            connection.execute(t.attempts.update().where(where).values(**values))

    def next_attempt(self, run_id: str, point_hash: str) -> int:
        """Return the attempt to work on: the last one that has no end yet, else a new one."""
        a = t.attempts.c
        with self._reading() as connection:
            row = connection.execute(
                select(a.attempt, a.ended)
                .where((a.run_id == run_id) & (a.hash == point_hash))
                .order_by(a.attempt.desc())
                .limit(1)
            ).first()
        if row is None:
            return 0
        return int(row.attempt) + 1 if row.ended else int(row.attempt)

    def record(self, run_id: str, document: Mapping[str, Any], log: bytes, log_size: int, *, truncated: bool) -> None:
        """Store one result with its evidence; a later attempt at the same point replaces an earlier one."""
        point_hash, attempt = str(document["point_hash"]), int(document["attempt"])
        facts = document["start_up"]["facts"]
        failure = document["failure"]
        row = {
            "run_id": run_id,
            "hash": point_hash,
            "attempt": attempt,
            "source": document["source"],
            "outcome": document["outcome"],
            "failure_kind": None if failure is None else failure["kind"],
            "document": dict(document),
            "recorded_at": _now(),
            **{name: facts.get(name) for name in _SIZES},
            "kv_cache_tokens": count(facts.get("kv_cache_tokens")),
        }
        a = t.attempts.c
        with self._transaction() as connection:
            statement = self._database.insert(t.results).values(**row)
            connection.execute(statement.on_conflict_do_update(index_elements=["run_id", "hash"], set_=row))
            proof = {"run_id": run_id, "hash": point_hash, "attempt": attempt, "encoding": "zlib", "size": log_size}
            proof |= {"truncated": truncated, "log": log}
            keep = self._database.insert(t.evidence).values(**proof)
            connection.execute(keep.on_conflict_do_update(index_elements=["run_id", "hash", "attempt"], set_=proof))
            where = (a.run_id == run_id) & (a.hash == point_hash) & (a.attempt == attempt)
            connection.execute(t.attempts.update().where(where).values(ended=True))

    def results(self, run_id: str) -> list[StoredResult]:
        """Return the results of a run in the order of its matrix."""
        r, p = t.results.c, t.points.c
        query = (
            select(t.points, r.attempt, r.source, r.outcome, r.failure_kind, r.document, r.recorded_at)
            .join(t.results, (r.run_id == p.run_id) & (r.hash == p.hash))
            .where(p.run_id == run_id)
            .order_by(p.position)
        )
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
        return [result_of(row) for row in rows]

    def points(self, run_id: str) -> list[StoredPoint]:
        """Return the points of a run in the order of its matrix."""
        with self._reading() as connection:
            query = select(t.points).where(t.points.c.run_id == run_id).order_by(t.points.c.position)
            return [point_of(row) for row in connection.execute(query).mappings()]

    def log(self, run_id: str, point_hash: str) -> bytes | None:
        """Return the redacted log of the newest attempt at a point, None when none is stored."""
        e = t.evidence.c
        with self._reading() as connection:
            blob = connection.scalar(
                select(e.log).where((e.run_id == run_id) & (e.hash == point_hash)).order_by(e.attempt.desc()).limit(1)
            )
        return None if blob is None else zlib.decompressobj().decompress(blob)
