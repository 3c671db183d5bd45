"""The port between the store and a database: transactions, and the lock of the kprof that drives a run."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.exc import DBAPIError

from orchestrator.errors import KprofError, RunDrivenError
from orchestrator.store.records import RunRecord

if TYPE_CHECKING:
    # The dialect that is not used is not worth its time to load.
    from sqlalchemy.dialects import postgresql, sqlite


class StoreError(KprofError):
    """The store cannot be read or written."""


class Database(ABC):
    """One database; `name` is what people see of its address, `remedy` is the advice when it fails."""

    remedy: str

    def __init__(self, name: str, engine: Engine) -> None:
        self.name = name
        self.engine = engine

    @abstractmethod
    def insert(self, table: Table) -> "sqlite.Insert | postgresql.Insert":
        """Return an insert that can say what to do on a conflict."""

    @abstractmethod
    def transaction(self, *, reading: bool) -> AbstractContextManager[Connection]:
        """Run the body in a transaction; of those that write there is one at a time in the whole store."""

    @abstractmethod
    def driving(self, run: RunRecord) -> AbstractContextManager[None]:
        """Hold a run against other kprofs; raises RunDrivenError when one drives it already."""

    def driven(self, run: RunRecord) -> RunDrivenError:
        """Return the error that tells of another kprof."""
        return RunDrivenError(
            f"run {run.number} of {self.name} is being driven by another kprof",
            remedy="wait for it, or start a run of its own with --fresh",
        )

    def failure(self, error: DBAPIError) -> StoreError:
        """Return the error that tells what the database said, on one line."""
        return StoreError(f"store {self.name}: {' '.join(str(error.orig).split())}", remedy=self.remedy)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()
