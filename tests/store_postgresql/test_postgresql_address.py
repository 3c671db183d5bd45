"""An address is taken in every spelling, and its password is never shown."""

import builtins
import dataclasses
import sys
import traceback
from typing import Any

import pytest

from orchestrator.errors import KprofError, UsageError
from orchestrator.store import open_store
from tests.fakes.matrix import group, points
from tests.store_postgresql.server import Server

POINTS = points(group())
SECRET = "hunter2-not-shown"  # no password of anything


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_spelling_of_the_scheme_opens_the_same_store(server: Server, url: str, scheme: str) -> None:
    """Tools write it differently, and a Secret made of a file ends with a line break; people see one."""
    store = open_store(url.replace("postgresql", scheme, 1) + "\n")
    assert store.name == url.replace(f":{server.password}", "")
    store.close()


def test_the_name_of_a_store_leads_to_it_again(url: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The `next:` line shows it; the password comes from where libpq looks."""
    first = open_store(f"{url}?options=-csearch_path%3Dpublic&application_name=night")
    first.create_run("aaaa", "m", "d", "local", "measured", POINTS)
    monkeypatch.setenv("PGPASSWORD", server.password)
    again = open_store(first.name)
    assert [run.id for run in again.runs()] == ["aaaa"]
    for store in (first, again):
        assert server.password not in store.name
        store.close()


def _said(error: BaseException) -> str:
    chain = "".join(traceback.format_exception(error))
    return f"{chain}{error!r}{error}{getattr(error, 'remedy', '')}"


BROKEN = {
    "wrong password": f"postgresql://kprof:{SECRET}@127.0.0.1:{{port}}/postgres",
    "wrong password as an option": f"postgresql://kprof@127.0.0.1:{{port}}/postgres?password={SECRET}",
    "no such database": f"postgresql://kprof:{SECRET}@127.0.0.1:{{port}}/nowhere",
    "no server": f"postgresql://kprof:{SECRET}@127.0.0.1:1/db",
    "no such host": f"postgresql://kprof:{SECRET}@no-such-host.invalid/db",
    "unescaped @": f"postgresql://kprof:p@{SECRET}@127.0.0.1/db",
    "unescaped / and @": f"postgresql://kprof:p/@{SECRET}@127.0.0.1/db",
    "a port that is none": f"postgresql://kprof:{SECRET}@127.0.0.1:{SECRET}/db",
    "no host": f"postgresql://kprof:{SECRET}",
    "unknown option": f"postgresql://kprof:{SECRET}@127.0.0.1/db?no_such_option={SECRET}",
    "bad value of an option": f"postgresql://kprof:{SECRET}@127.0.0.1/db?sslmode=perhaps",
    "another driver": f"postgresql+asyncpg://kprof:{SECRET}@127.0.0.1/db",
    "another database": f"mysql://kprof:{SECRET}@127.0.0.1/db",
}


@pytest.mark.parametrize("name", BROKEN)
def test_no_error_shows_the_password(server: Server, name: str) -> None:
    """Neither the message nor the traceback below it."""
    with pytest.raises(KprofError) as caught:
        open_store(BROKEN[name].format(port=server.port))
    assert SECRET not in _said(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["unescaped @", "unknown option", "another driver", "a port that is none"])
def test_a_bad_address_is_a_usage_error(server: Server, name: str) -> None:
    """Nothing was started, and exit code 2 says so."""
    with pytest.raises(UsageError, match="--store"):
        open_store(BROKEN[name])


def test_a_failing_statement_shows_neither_password_nor_parameters(server: Server, url: str) -> None:
    """The library's own words hold the statement, and would hold what was to be written."""
    store = open_store(url)
    server.execute("DROP TABLE points CASCADE", url)
    with pytest.raises(KprofError, match="points") as caught:
        store.create_run("aaaa", "m", "d", "local", "measured", [dataclasses.replace(POINTS[0], label=SECRET)])
    assert SECRET not in _said(caught.value)
    assert server.password not in _said(caught.value)
    assert store.runs() == []
    store.close()


def test_a_missing_driver_is_a_usage_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store in a file needs none."""
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "psycopg":
            raise ImportError(name)
        return real(name, *rest, **more)

    for module in [name for name in sys.modules if name.startswith("orchestrator.store.postgresql")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match="driver") as caught:
        open_store(f"postgresql://kprof:{SECRET}@127.0.0.1/db")
    assert "pip install" in (caught.value.remedy or "")
    assert SECRET not in _said(caught.value)


def test_an_own_schema_shares_a_database_with_another_program(server: Server, url: str) -> None:
    """Only the schema that the address names has to be empty."""
    server.execute("CREATE TABLE invoices (x integer)", url)
    server.execute("CREATE SCHEMA kprof", url)
    with pytest.raises(KprofError, match="another program"):
        open_store(url)
    store = open_store(f"{url}?options=-csearch_path%3Dkprof")
    assert store.create_run("aaaa", "m", "d", "local", "measured", POINTS).number == 1
    store.close()
    assert server.execute("SELECT id FROM kprof.runs", url) == [("aaaa",)]


def test_a_user_without_rights_is_told(server: Server, url: str) -> None:
    """From PostgreSQL 15 on nobody but the owner may create tables in `public`."""
    name = url.rpartition("/")[2]
    server.execute(f"CREATE ROLE guest_{name} LOGIN PASSWORD '{server.password}'")
    with pytest.raises(KprofError, match="permission denied") as caught:
        open_store(url.replace("//kprof:", f"//guest_{name}:"))
    assert "rights" in (caught.value.remedy or "")
