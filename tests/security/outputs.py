"""Everything that kprof says and keeps of one sweep, by the name of what said it."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from tests.e2e import stored
from tests.security.commands import inside
from tests.security.places import PLACES

FORMATS = ("table", "markdown", "csv", "json")


def readers() -> list[tuple[str, ...]]:
    """Return the commands that read what is stored."""
    of_points = [
        (command, place, *more)
        for place in PLACES
        for command, *more in (("show",), ("show", "--format", "json"), ("logs",))
        if place != "refused" or command != "logs"
    ]
    return [*(("summary", "--format", name) for name in FORMATS), *of_points]


def read_all(variables: Mapping[str, str]) -> dict[str, bytes]:
    """Run every reader; each must find what it looks for."""
    said = {}
    for command in readers():
        code, text = inside(variables, *command)
        assert code == 0, f"{command}: {text.decode()}"
        said[" ".join(command)] = text
    return said


def kept(folder: Path) -> dict[str, bytes]:
    """Return the bytes of the store as they lie there, its log, and every text in it."""
    store = folder / "kprof.db"
    with closing(sqlite3.connect(store)) as connection:
        texts = "\n".join(connection.iterdump()).encode("utf-8", "surrogateescape")
    return {
        "the store's files": stored.raw_bytes(store),
        "the store's text": texts,
        "the store's logs": stored.logs(store),
    }
