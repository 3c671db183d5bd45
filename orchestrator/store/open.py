"""From an address to a store."""

from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from orchestrator.errors import UsageError
from orchestrator.store.database import Database
from orchestrator.store.sqlite import SqliteDatabase
from orchestrator.store.store import Store

_POSTGRESQL = ("postgresql", "postgresql+psycopg", "postgres")
_REMEDY = "use a SQLite file, sqlite:///kprof.db, or PostgreSQL, postgresql://USER@HOST/DATABASE"


def open_store(url: str) -> Store:
    """Open or create a store.

    Raises UsageError for an address that is neither a path nor a URL of SQLite or PostgreSQL, StoreError for a database
    that is no kprof store or does not answer.
    """
    # A Secret made of a file ends with that file's line break.
    return Store(_database(_parse(url.strip() if "://" in url else f"sqlite:///{url}")))


def _database(parsed: URL) -> Database:
    if parsed.drivername in _POSTGRESQL:
        try:
            from orchestrator.store.postgresql import PostgresqlDatabase
        except ImportError:
            raise UsageError(
                "--store: the driver of PostgreSQL is not installed", remedy="run: pip install 'psycopg[binary]'"
            ) from None
        return PostgresqlDatabase(parsed)
    if parsed.get_backend_name() == "sqlite":
        return SqliteDatabase(parsed)
    raise UsageError(f"--store: {parsed.drivername} is not supported", remedy=_REMEDY)


def _parse(url: str) -> URL:
    # What follows an unescaped @ of a password would be taken for the host, and be shown.
    scheme, _, rest = url.partition("://")
    if not scheme.startswith("sqlite") and rest.partition("?")[0].count("@") > 1:
        raise UsageError(
            "--store: the address holds more than one @", remedy="write @ in a user name or a password as %40"
        )
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        # The parser's own words may hold a part of the password.
        raise UsageError("--store: the address cannot be read", remedy=_REMEDY) from None
