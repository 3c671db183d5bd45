"""A store in a PostgreSQL database; several kprofs on several machines may share it."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from psycopg import errors
from sqlalchemy import URL, Connection, Table, create_engine, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from orchestrator.errors import RunDrivenError
from orchestrator.store.database import Database
from orchestrator.store.postgresql_address import address_of
from orchestrator.store.postgresql_connection import Patience, PatientConnection, connect
from orchestrator.store.records import RunRecord


def _key(name: str) -> int:
    # Advisory locks are numbers of 64 bits, shared by everything in the database.
    return int.from_bytes(hashlib.sha256(f"kprof {name}".encode()).digest()[:8], signed=True)


_WRITER = _key("writer")
_END_OLD_HOLDER = text(
    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = :pid "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND (classid::bigint << 32 | objid::bigint) = :key"
)


class PostgresqlDatabase(Database):
    """One database, or one schema of it; raises UsageError for an address that the driver does not take."""

    remedy = "check the server, the address and the rights of its user"

    def __init__(self, url: URL) -> None:
        address = address_of(url)
        self._patience = Patience()
        # The connection that holds the locks of the runs in `_driven`; None where it has to be made.
        self._session: Connection | None = None
        self._driven: list[RunRecord] = []
        self._holder: int | None = None  # the server's process of the last such connection

        def creator() -> PatientConnection:
            return connect(address.parameters, self._patience)

        # The engine gets no address, so that no message of it can show the password.
        engine = create_engine(
            "postgresql+psycopg://",
            creator=creator,
            pool_pre_ping=True,
            use_native_hstore=False,
            hide_parameters=True,
        )
        super().__init__(address.name, engine)

    def insert(self, table: Table) -> postgresql.Insert:
        """Return PostgreSQL's insert."""
        return postgresql.insert(table)

    @contextmanager
    def transaction(self, *, reading: bool) -> Iterator[Connection]:
        """Run the body in a transaction; while a run is driven, on the connection that holds its lock.

        So a driver that has lost its lock, with its connection, writes nothing before it has the lock again.
        """
        self._patience.renew()
        with self._connection() as connection, connection.begin():
            if not reading:
                # Writers come one at a time, as in SQLite: no number is given twice, no two lock each other out.
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITER})
            yield connection

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        if self._driven:
            yield self._holding()
        else:
            with self.engine.connect() as connection:
                yield connection

    @contextmanager
    def driving(self, run: RunRecord) -> Iterator[None]:
        """Hold a run against other kprofs on every machine, with an advisory lock of one connection.

        The server gives the lock back when that connection ends. A connection that broke is made again with the next
        read or write; raises RunDrivenError there when another kprof has taken the run meanwhile.
        """
        self._patience.renew()
        try:
            self._lock(self._holding(), run)
        except DBAPIError as error:
            self._drop_unused()
            raise self.failure(error) from error
        except RunDrivenError:
            self._drop_unused()
            raise
        self._driven.append(run)
        try:
            yield
        finally:
            self._driven.remove(run)
            self._patience.renew()
            with suppress(DBAPIError):
                self._unlock(run)
            self._drop_unused()

    def _holding(self) -> Connection:
        """Return the connection that holds the locks, made anew with all of them when it broke."""
        if self._session is not None:
            try:
                with self._session.begin():
                    self._session.execute(text("SELECT 1"))
            except DBAPIError:
                self._drop()
            else:
                return self._session
        session = self.engine.connect()
        try:
            for run in self._driven:
                self._end_old_holder(session, run)
                self._lock(session, run)
            with session.begin():
                self._holder = session.scalar(text("SELECT pg_backend_pid()"))
        except BaseException:  # whatever it was, a session without its locks may not go back to the pool
            session.invalidate()
            session.close()
            raise
        self._session = session
        return session

    def _end_old_holder(self, session: Connection, run: RunRecord) -> None:
        # Where the network was cut the server still sees our old connection, and its lock would stand in our way.
        with session.begin():
            session.execute(_END_OLD_HOLDER, {"pid": self._holder, "key": _key(f"run {run.id}")})

    def _lock(self, session: Connection, run: RunRecord) -> None:
        try:
            with session.begin():
                # The server may need a moment to see that the last holder died.
                session.execute(text("SET LOCAL lock_timeout = '1s'"))
                session.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _key(f"run {run.id}")})
        except DBAPIError as error:
            if isinstance(error.orig, errors.LockNotAvailable):
                raise self.driven(run) from error
            raise

    def _unlock(self, run: RunRecord) -> None:
        if self._session is not None:
            with self._session.begin():
                self._session.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _key(f"run {run.id}")})

    def _drop_unused(self) -> None:
        if not self._driven:
            self._drop()

    def _drop(self) -> None:
        # Invalid, so that it does not go back to the pool: its locks would live on there.
        session, self._session = self._session, None
        if session is not None:
            session.invalidate()
            session.close()

    def close(self) -> None:
        """Close every connection, and give up every lock."""
        self._drop()
        super().close()
