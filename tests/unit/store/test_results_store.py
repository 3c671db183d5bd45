"""What was recorded is there tomorrow, whoever writes at the same time, in each database."""

import multiprocessing
import re
import zlib

import pytest

from orchestrator.errors import KprofError
from orchestrator.matrix.point import Point
from orchestrator.store import RunRecord, Store, open_store
from tests.fakes.matrix import group, points
from tests.fakes.results import document
from tests.unit.store.raw import rows

POINTS = points(group(arguments={"tp": [1, 2, 4]}))
LOG = zlib.compress(b"the log\n")


def _run(store: Store, run_id: str = "aaaa", points: list[Point] = POINTS, digest: str = "d") -> RunRecord:
    return store.create_run(run_id, "m", digest, "local", "measured", points)


def test_a_result_survives_reopening(url: str, store: Store) -> None:
    """Run, point, document and log are all on disk once `record` returned."""
    run = _run(store)
    store.intend(run.id, POINTS[1].hash, "pod", 0)
    store.record(run.id, document(POINTS[1]), LOG, 8, truncated=False)
    again = open_store(url)
    (found,) = again.results(run.id)
    assert again.latest_run() == run
    assert (found.point.id, found.outcome, found.source, found.failure_kind) == (
        POINTS[1].id,
        "ready",
        "measured",
        None,
    )
    assert found.document == document(POINTS[1])
    assert again.log(run.id, POINTS[1].hash) == b"the log\n"
    again.close()


def test_a_result_is_there_without_closing_the_store(url: str, store: Store) -> None:
    """A killed kprof closes nothing."""
    run = _run(store)
    store.record(run.id, document(POINTS[0]), LOG, 8, truncated=False)
    assert rows(url, "select outcome from results") == [("ready",)]


def test_results_come_in_the_order_of_the_matrix(store: Store) -> None:
    """However the points ended."""
    run = _run(store)
    for point in reversed(POINTS):
        store.record(run.id, document(point), LOG, 8, truncated=False)
    assert [item.point.id for item in store.results(run.id)] == [point.id for point in POINTS]
    assert [item.id for item in store.points(run.id)] == [point.id for point in POINTS]


def test_a_later_attempt_replaces_an_earlier_one(store: Store) -> None:
    """Every point has one result, the newest; its log is the newest too."""
    run, of = _run(store), POINTS[0]
    store.record(run.id, document(of, kind="pod.evicted"), zlib.compress(b"old"), 3, truncated=False)
    store.record(run.id, document(of, attempt=1), zlib.compress(b"new"), 3, truncated=False)
    (found,) = store.results(run.id)
    assert (found.attempt, found.outcome, found.failure_kind) == (1, "ready", None)
    assert store.log(run.id, of.hash) == b"new"


def test_recording_the_same_attempt_twice_changes_nothing(store: Store) -> None:
    """A retry after a lost answer is harmless."""
    run, of = _run(store), POINTS[0]
    for _ in range(2):
        store.record(run.id, document(of), LOG, 8, truncated=False)
    assert len(store.results(run.id)) == 1


def test_an_attempt_without_an_end_is_taken_up_again(store: Store) -> None:
    """A killed kprof's pod is found under its name; only a recorded result starts a new attempt."""
    run, of = _run(store), POINTS[0]
    assert store.next_attempt(run.id, of.hash) == 0
    store.intend(run.id, of.hash, "pod-0", 0)
    store.intend(run.id, of.hash, "pod-0", 0)
    store.created(run.id, of.hash, 0, "uid")
    assert store.next_attempt(run.id, of.hash) == 0
    store.record(run.id, document(of), LOG, 8, truncated=False)
    assert store.next_attempt(run.id, of.hash) == 1
    store.intend(run.id, of.hash, "pod-1", 1)
    assert store.next_attempt(run.id, of.hash) == 1
    assert store.next_attempt(run.id, POINTS[1].hash) == 0


def test_a_run_is_found_by_number_id_and_the_start_of_its_id(store: Store) -> None:
    """The newest run that fits is the one that resumes; a percent sign is no wildcard."""
    first, second = _run(store, "ab12"), _run(store, "cd34", digest="other")
    assert (first.number, second.number) == (1, 2)
    assert store.run("1") == first
    assert store.run("cd34") == store.run("cd") == second
    assert store.run("CD") == second
    assert store.run("%") is None
    assert store.run("²") is None
    assert store.run("3") is None
    assert store.latest_run() == second
    assert store.latest_run("d") == first
    assert store.latest_run("d", "kubernetes") is None
    assert store.latest_run("d", "local", "SIMULATED") is None


def test_an_id_of_digits_is_found_by_its_start(store: Store) -> None:
    """Ids are hexadecimal, so some look like numbers."""
    run = _run(store, "12345678")
    assert store.run("12345678") == run
    assert store.run("1234") == run


def test_a_finished_run_says_so(store: Store) -> None:
    """Its end is recorded once every point has its result."""
    run = _run(store)
    assert run.finished_at is None
    store.finish_run(run.id)
    assert (store.run(run.id) or run).finished_at is not None


def test_a_result_of_an_unknown_point_is_refused(store: Store) -> None:
    """A result always belongs to a point of its run."""
    run = _run(store, points=POINTS[:1])
    with pytest.raises(KprofError, match=re.escape(store.name)):
        store.record(run.id, document(POINTS[2]), LOG, 8, truncated=False)
    assert store.results(run.id) == []


def test_a_point_without_a_log_has_none(store: Store) -> None:
    """None is not an empty log."""
    run = _run(store)
    assert store.log(run.id, POINTS[0].hash) is None


def test_of_two_that_make_the_same_run_at_once_one_makes_it(store: Store) -> None:
    """The other one gets that run, unless it is finished, of another matrix, or older than what was known."""

    def made(run_id: str, since: int | None, digest: str = "d", source: str = "measured") -> int:
        return store.create_run(run_id, "m", digest, "local", source, POINTS, since=since).number

    assert made("aaaa", 0) == 1
    assert made("bbbb", 0) == 1
    assert made("cccc", 0, digest="e") == 2
    assert made("dddd", 0, source="SIMULATED") == 3
    assert made("eeee", 3) == 4
    assert made("ffff", None) == 5
    store.finish_run("ffff")
    assert made("gggg", 4) == 6
    assert len(store.points("gggg")) == len(POINTS)
    assert [run.id for run in store.runs()] == ["aaaa", "cccc", "dddd", "eeee", "ffff", "gggg"]


def _write(url: str, run_id: str, place: int, count: int) -> None:
    store = open_store(url)
    for attempt in range(count):
        store.intend(run_id, POINTS[place].hash, f"pod-{attempt}", attempt)
        store.record(run_id, document(POINTS[place], attempt=attempt), LOG, 8, truncated=False)
    store.create_run(f"own-{place}", "m", "d", "local", "measured", POINTS)


@pytest.mark.timeout(60)
def test_two_processes_that_write_at_once_lose_nothing(url: str, store: Store) -> None:
    """Every attempt, every result and both new runs are there, with numbers of their own."""
    run = _run(store)
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write, args=(url, run.id, place, 15)) for place in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(50)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [(item.attempt, item.outcome) for item in store.results(run.id)] == [(14, "ready")] * 2
    assert rows(url, "select count(*) from attempts where ended") == [(30,)]
    assert rows(url, "select count(*) from evidence") == [(30,)]
    assert {store.run("own-0"), store.run("own-1")} == {store.run("2"), store.run("3")} - {None}


def _create(url: str, name: str, count: int) -> None:
    store = open_store(url)
    for place in range(count):
        store.create_run(f"{name}-{place}", "m", "d", "local", "measured", POINTS)


@pytest.mark.timeout(60)
def test_processes_that_open_an_empty_store_at_once_share_it(url: str) -> None:
    """The tables are made once, and no number is given twice."""
    spawn = multiprocessing.get_context("spawn")
    openers = [spawn.Process(target=_create, args=(url, str(name), 10)) for name in range(3)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join(50)
    assert [opener.exitcode for opener in openers] == [0] * 3
    store = open_store(url)
    assert [run.number for run in store.runs()] == list(range(1, 31))
    store.close()


def test_another_programs_database_is_left_alone(url: str) -> None:
    """Whatever its tables are called, it gets none of kprof's."""
    for names in (["runs"], ["runs", "meta"]):
        rows(url, f"create table {names[-1]} (x integer)")
        with pytest.raises(KprofError, match="another program") as caught:
            open_store(url)
        assert caught.value.remedy
        listed = "select name from sqlite_master"
        if url.startswith("postgresql"):
            listed = "select tablename from pg_tables where schemaname = 'public'"
        assert {name for (name,) in rows(url, listed)} == set(names)


def test_a_newer_schema_is_refused(url: str, store: Store) -> None:
    """A kprof of tomorrow wrote it: nothing is changed by the one of today."""
    store.close()
    rows(url, "update meta set value = '999'")
    with pytest.raises(KprofError, match="999") as caught:
        open_store(url)
    assert caught.value.remedy
