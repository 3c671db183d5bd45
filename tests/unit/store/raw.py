"""The database behind a store, read and damaged without kprof."""

import sqlite3
from contextlib import closing

import psycopg


def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    """Run one statement in the database of a store and return its rows."""
    if url.startswith("postgresql"):
        with psycopg.connect(url, autocommit=True) as server:
            cursor = server.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as file:
        return file.execute(statement).fetchall()
