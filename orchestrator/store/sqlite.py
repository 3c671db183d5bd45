"""A store in a SQLite file on a local file system."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Table, create_engine, event
from sqlalchemy.dialects import sqlite

from orchestrator.errors import UsageError
from orchestrator.store.database import Database
from orchestrator.store.records import RunRecord

BUSY_SECONDS = 5.0
# A sweep's loop stands still meanwhile: nobody renews its Lease and no signal is heard. It waits between its tries.
DRIVING_BUSY_SECONDS = 0.2


class SqliteDatabase(Database):
    """One file; raises UsageError when its folder does not exist."""

    remedy = "check the file, its disk and its permissions"

    def __init__(self, url: URL) -> None:
        if url.database and url.database != ":memory:" and not Path(url.database).absolute().parent.is_dir():
            raise UsageError(f"--store: the folder of {url.database} does not exist", remedy="create it first")
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS}, hide_parameters=True)
        event.listen(engine, "connect", _pragmas)
        event.listen(engine, "begin", self._begin)
        self._drives = False
        super().__init__(url.database or "memory", engine)
        self._lock: BufferedWriter | None = None

    def insert(self, table: Table) -> sqlite.Insert:
        """Return SQLite's insert."""
        return sqlite.insert(table)

    @contextmanager
    def transaction(self, *, reading: bool) -> Iterator[Connection]:
        """Run the body in a transaction."""
        with self.engine.connect().execution_options(kprof_reading=reading) as connection, connection.begin():
            yield connection

    @contextmanager
    def driving(self, run: RunRecord) -> Iterator[None]:
        """Hold a run against other kprofs on this machine.

        The kernel gives the lock back when its holder dies, however it dies.
        """
        if self._lock is None:
            # Open until the store is closed: closing it would give back the locks of other runs too.
            self._lock = Path(f"{self.name}.lock").open("ab")  # noqa: SIM115  see above
        try:
            # One byte of the file for each run.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, run.number)
        except OSError as error:
            raise self.driven(run) from error
        self._drives = True
        try:
            yield
        finally:
            self._drives = False
            if self._lock is not None:
                fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, run.number)

    def close(self) -> None:
        """Close every connection, and give up every lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        super().close()

    def _begin(self, connection: Connection) -> None:
        seconds = DRIVING_BUSY_SECONDS if self._drives else BUSY_SECONDS
        connection.exec_driver_sql(f"PRAGMA busy_timeout={seconds * 1000:.0f}")
        # A writer takes its lock at once, so that it never has to upgrade; a reader takes none and sees a snapshot.
        reading = connection.get_execution_options().get("kprof_reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _pragmas(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun by _begin, so that a writer locks at once
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
