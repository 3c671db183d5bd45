"""What a log or a matrix may say does not decide whether a result is kept."""

import dataclasses
import json
import os
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.matrix.point import Point
from orchestrator.store import RunRecord, Store
from tests.fakes.matrix import group, points
from tests.fakes.results import document

(POINT,) = points(group())
MANY = 10_000_000

# Every code point counts, halves of surrogate pairs and NUL among them.
_text = st.text(st.characters(), max_size=40) | st.sampled_from(["\x00", "a\x00b", "\ud800", "\udfff\ud800", "\\u0000"])
_number = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
_json = st.recursive(
    st.none() | st.booleans() | _number | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=20,
)


def _run(store: Store, of: Point = POINT) -> RunRecord:
    return store.create_run(os.urandom(4).hex(), "m", "d", "local", "measured", [of])


def _keep(store: Store, run: RunRecord, log: bytes = b"", **fields: Any) -> dict[str, Any]:
    whole = document(POINT) | fields
    store.record(run.id, whole, zlib.compress(log), len(log), truncated=False)
    return whole


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(extra=_json, log=st.binary(max_size=200))
def test_any_document_and_any_log_come_back(store: Store, extra: Any, log: bytes) -> None:
    """Character by character, as JSON keeps it, and byte by byte."""
    run = _run(store)
    whole = _keep(store, run, log, flags=[extra])
    (found,) = store.results(run.id)
    assert found.document == json.loads(json.dumps(whole))
    assert store.log(run.id, POINT.hash) == log


def test_a_huge_result_comes_back(store: Store) -> None:
    """Ten megabytes of document, ten of log that does not compress."""
    run, log, line = _run(store), os.urandom(MANY), "\x00é\ud83d" * (MANY // 18)
    _keep(store, run, log, flags=[line])
    (found,) = store.results(run.id)
    assert found.document["flags"] == [line]
    assert store.log(run.id, POINT.hash) == log


def test_what_json_cannot_say_is_null(store: Store) -> None:
    """JSON has no infinity; a reader of the stored document would stumble over the word."""
    run = _run(store)
    _keep(store, run, seconds={"total": float("inf"), "queued": float("nan"), "startup": 1.5}, flags=[(float("-inf"),)])
    (found,) = store.results(run.id)
    assert found.document["seconds"] == {"total": None, "queued": None, "startup": 1.5}
    assert found.document["flags"] == [[None]]


@pytest.mark.parametrize("tokens", [1e300, float("inf"), float("nan"), 2.0**63, -(2.0**63), 3e9, 0.5])
def test_a_figure_of_any_size_loses_no_result(store: Store, tokens: float) -> None:
    """A damaged log may claim more tokens than a column can count."""
    run = _run(store)
    start_up = document(POINT)["start_up"] | {"facts": {"kv_cache_tokens": tokens}}
    store.record(run.id, document(POINT) | {"start_up": start_up}, zlib.compress(b""), 2**40, truncated=True)
    assert [item.outcome for item in store.results(run.id)] == ["ready"]


def test_long_words_are_kept_whole(store: Store) -> None:
    """SQLite knows no limit of a column, so no other database may set one."""
    long = "x" * 5000
    of = dataclasses.replace(POINT, id=long, label=long, model=long, image=long, expect=long, vllm_version=long)
    run = store.create_run("aaaa", long, "d", long, "measured", [of])
    assert store.run("aaaa") == run
    (found,) = store.points(run.id)
    assert {found.id, found.label, found.model, found.image, found.expect, found.vllm_version} == {long}


def test_characters_that_no_database_holds_are_replaced(store: Store) -> None:
    """The rest of the words is there; a search with such a character finds nothing, and is no crash."""
    run = _run(store, dataclasses.replace(POINT, label="a\x00b\ud800c é 😀"))
    assert [item.label for item in store.points(run.id)] == ["a\ufffdb\ufffdc é 😀"]
    assert store.run("\x00\udcff") is None
    store.intend(run.id, POINT.hash, "pod\x00", 0)
    store.created(run.id, POINT.hash, 0, "uid\udcff")
    assert store.next_attempt(run.id, POINT.hash) == 0
