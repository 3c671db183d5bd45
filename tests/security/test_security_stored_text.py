"""Whatever stands in a store, its readers print text only, and JSON that is JSON."""

import csv
import io
import json
import zlib
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from orchestrator.report.tables import printable
from orchestrator.store import open_store
from tests.fakes.matrix import group, points
from tests.fakes.results import document
from tests.security.commands import environment, inside
from tests.security.hostile import texts, unsafe

HUMAN: tuple[tuple[str, ...], ...] = (
    ("show", "good"),
    ("show", "bad"),
    ("logs", "bad"),
    ("summary",),
    ("summary", "--format", "markdown"),
)
JSON: tuple[tuple[str, ...], ...] = (
    ("show", "good", "--format", "json"),
    ("show", "bad", "--format", "json"),
    ("summary", "--format", "json"),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(text=texts)
def test_any_stored_text_is_only_text(tmp_path: Path, text: str) -> None:
    """Of a log's figures and ranks, of a failure, a note, a node, a cluster's name."""
    (tmp_path / "kprof.db").unlink(missing_ok=True)
    good, bad = points(group("good"), group("bad", arguments={"seed": 1}))
    store = open_store(str(tmp_path / "kprof.db"))
    run = store.create_run("abcd", "m", "d", f"cluster {text}", "measured", [good, bad])
    start_up = document(good)["start_up"]
    ready = document(good, flags=(text,)) | {"node": text}
    evidence = {name: {"line_number": 1, "line": text} for name in start_up["facts"]}
    ready["start_up"] = start_up | {"evidence": evidence, "ranks": [{"rank": text}, {"rank": "TP1"}]}
    ready["start_up"]["vllm_version"] = text
    failed = document(bad, kind="unknown", line=text, remedy=text)
    for stored in (ready, failed):
        store.record(run.id, stored, zlib.compress(text.encode()), 1, truncated=False)
    store.close()
    variables = environment(tmp_path, None)
    for command in HUMAN:
        code, said = inside(variables, *command, terminal=True)
        assert (code, unsafe(said)) == (0, []), command
    for command in JSON:
        code, said = inside(variables, *command)
        assert code == 0
        assert isinstance(json.loads(said.decode("ascii")), dict)
    _, table = inside(variables, "summary", "--format", "csv", terminal=True)
    assert unsafe(table) == []
    assert [row["point"] for row in csv.DictReader(io.StringIO(table.decode()))] == ["good", "bad"]


@settings(deadline=None)
@given(text=texts)
def test_printable_text_is_safe_and_as_long_as_before(text: str) -> None:
    """A dot stands for each character that was taken, so that columns and quotes stay where they are."""
    shown = printable(text)
    assert len(shown) == len(text)
    assert unsafe(shown.encode()) == []
    assert "\n" not in shown
