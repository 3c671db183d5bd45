"""The address of a PostgreSQL store: what the driver gets of it, and what people may see of it."""

from dataclasses import dataclass

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL

from orchestrator.errors import UsageError

# Options of an address that lead to another server or schema, and never hold a secret.
_SHOWN = ("host", "hostaddr", "port", "options", "service", "sslmode", "sslrootcert")


@dataclass(frozen=True, slots=True)
class PostgresqlAddress:
    """`name` can be printed and used as an address again; `parameters` hold the password."""

    name: str
    parameters: dict[str, str | int]

    def __repr__(self) -> str:
        """Return the name only: a repr ends up in messages."""
        return f"PostgresqlAddress({self.name!r})"


def address_of(url: URL) -> PostgresqlAddress:
    """Return the parts of a URL; raises UsageError for an option that the driver does not know."""
    query = {key: value if isinstance(value, str) else ",".join(value) for key, value in url.query.items()}
    given = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": None if url.password is None else str(url.password),
        "dbname": url.database or None,
    }
    parameters: dict[str, str | int] = {**query}
    parameters |= {key: value for key, value in given.items() if value is not None}
    try:
        make_conninfo("", **parameters)
    except psycopg.Error as error:
        # It names the option, not its value.
        raise UsageError(
            f"--store: {error}", remedy="options are those of libpq, for example ?sslmode=require"
        ) from None
    shown = {key: value for key, value in query.items() if key in _SHOWN}
    bare = URL.create("postgresql", url.username, None, url.host, url.port, url.database, shown)
    return PostgresqlAddress(bare.render_as_string(hide_password=True), parameters)
