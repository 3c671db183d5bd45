"""A bad matrix is refused before anything starts, with the place, the field and what to do."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.errors import KprofError, NothingSelectedError, UsageError
from orchestrator.matrix import load_matrix
from tests.fakes.matrix import FILE, load_text

HEAD = """version: 1
name: m
defaults:
  image: vllm/vllm-openai:v0.11.0
"""
GROUP = """groups:
  - name: a
    model: org/model
"""
ARGUMENTS = HEAD + GROUP + "    arguments:\n"
AXES = ARGUMENTS + "      tp: [1, 2]\n      max-model-len: [100, 200]\n"

# name: (document, line, what the message must name)
PLACED: dict[str, tuple[str, int, str]] = {
    "unknown field at the top": (HEAD + "colour: red\n" + GROUP, 5, "colour"),
    "unknown field of a group": (HEAD + GROUP + "    modle: x\n", 8, "groups[0].modle"),
    "unknown field of the pod": (HEAD + GROUP + "    pod:\n      hostNetwork: true\n", 9, "groups[0].pod.hostNetwork"),
    "snake case in place of camel case": (
        HEAD + GROUP + "    timeouts:\n      startup_seconds: 60\n",
        9,
        "groups[0].timeouts.startup_seconds",
    ),
    "missing model": (HEAD + "groups:\n  - name: a\n", 6, "groups[0].model"),
    "missing image": ("version: 1\nname: m\n" + GROUP, 4, "image"),
    "unknown version": (HEAD.replace("version: 1", "version: 2") + GROUP, 1, "version"),
    "version as text": (HEAD.replace("version: 1", "version: '1'") + GROUP, 1, "version"),
    "name as number": (HEAD.replace("name: m", "name: 5") + GROUP, 2, "name"),
    "name with a capital letter": (HEAD + GROUP.replace("name: a", "name: Big"), 6, "groups[0].name"),
    "seconds as text": (HEAD + GROUP + "    timeouts:\n      startupSeconds: '60'\n", 9, "timeouts.startupSeconds"),
    "negative seconds": (HEAD + GROUP + "    timeouts:\n      startupSeconds: -1\n", 9, "timeouts.startupSeconds"),
    "env value as number": (HEAD + GROUP + "    env:\n      A: 1\n", 9, "groups[0].env.A"),
    "env name with a dash": (HEAD + GROUP + "    env:\n      A-B: x\n", 9, "env"),
    "arguments as a list": (HEAD + GROUP + "    arguments: [tp]\n", 8, "groups[0].arguments"),
    "groups as a mapping": (HEAD + "groups:\n  a: {}\n", 5, "groups"),
    "no groups": (HEAD + "groups: []\n", 5, "groups"),
    "duplicate key": (HEAD + "name: again\n" + GROUP, 5, "name"),
    "duplicate nested key": (ARGUMENTS + "      seed: 1\n      seed: 2\n", 10, "groups[0].arguments.seed"),
    "one argument in two spellings": (
        ARGUMENTS + "      tp: 2\n      tensor_parallel_size: 2\n",
        10,
        "tensor-parallel-size",
    ),
    "anchor": (HEAD + GROUP + "    env: &e\n      A: x\n", 8, "anchors"),
    "alias": (HEAD + "x: *missing\n" + GROUP, 5, "alias"),
    "merge key": (HEAD + GROUP + "    <<: {env: {}}\n", 8, "keys"),
    "too deep": (ARGUMENTS + "      x: " + "[" * 40 + "]" * 40 + "\n", 9, "nested"),
    "tab": (HEAD + "groups:\n\t- name: a\n", 6, "\\t"),
    "empty document": ("", 1, "mapping"),
    "only a comment": ("# nothing\n", 1, "mapping"),
    "list at the top": ("- a\n- b\n", 1, "mapping"),
    "text at the top": ("hello\n", 1, "mapping"),
    "two documents": (HEAD + GROUP + "---\na: 1\n", 8, "document"),
    "date": (ARGUMENTS + "      revision: 2024-01-02\n", 9, "groups[0].arguments.revision"),
    "unclosed bracket": (ARGUMENTS + "      tp: [1\n", 10, ""),
    "negative tensor parallel size": (ARGUMENTS + "      seed: 1\n      tp: -1\n", 10, "tensor-parallel-size"),
    "zero tensor parallel size": (ARGUMENTS + "      seed: 1\n      tp: 0\n", 10, "tensor-parallel-size"),
    "fractional tensor parallel size": (ARGUMENTS + "      seed: 1\n      tp: 1.5\n", 10, "tensor-parallel-size"),
    "tensor parallel size as a word": (ARGUMENTS + "      seed: 1\n      tp: two\n", 10, "tensor-parallel-size"),
    "tensor parallel size as a boolean": (ARGUMENTS + "      seed: 1\n      tp: true\n", 10, "tensor-parallel-size"),
    "a bad value among good ones": (ARGUMENTS + "      seed: 1\n      tp: [1, 0]\n", 10, "tensor-parallel-size"),
    "a bad value in the defaults": (
        HEAD + "  arguments:\n    tp: 0\n" + GROUP,
        6,
        "tensor-parallel-size",
    ),
    "utilization in percent": (ARGUMENTS + "      gpu_memory_utilization: 90\n", 9, "gpu-memory-utilization"),
    "utilization of nothing": (ARGUMENTS + "      gpu-memory-utilization: [0.9, 0]\n", 9, "gpu-memory-utilization"),
    "utilization as a word": (ARGUMENTS + "      gpu-memory-utilization: high\n", 9, "gpu-memory-utilization"),
    "utilization as a boolean": (ARGUMENTS + "      gpu-memory-utilization: true\n", 9, "gpu-memory-utilization"),
    "utilization not a number": (
        ARGUMENTS + "      gpu-memory-utilization: .nan\n",
        9,
        "groups[0].arguments.gpu-memory-utilization",
    ),
    "infinite utilization": (
        ARGUMENTS + "      gpu-memory-utilization: .inf\n",
        9,
        "groups[0].arguments.gpu-memory-utilization",
    ),
    "not a number among axis values": (
        ARGUMENTS + "      gpu-memory-utilization: [0.9, .nan]\n",
        9,
        "groups[0].arguments.gpu-memory-utilization",
    ),
    "infinity inside a mapping": (ARGUMENTS + "      hf-overrides: {a: .inf}\n", 9, "groups[0].arguments.hf-overrides"),
    "control character": (ARGUMENTS + '      dtype: "a\\x07b"\n', 9, "groups[0].arguments.dtype"),
    "control character among axis values": (
        ARGUMENTS + '      dtype: [a, "a\\x07b"]\n',
        9,
        "groups[0].arguments.dtype",
    ),
    "port": (ARGUMENTS + "      port: 80\n", 9, "port"),
    "api key": (ARGUMENTS + "      --api_key: secret\n", 9, "api-key"),
    "model as an argument": (ARGUMENTS + "      model: x\n", 9, "model"),
    "argument that is no flag": (ARGUMENTS + "      'a b': 1\n", 9, "a b"),
    "empty axis": (ARGUMENTS + "      tp: []\n", 9, "groups[0].arguments.tp"),
    "a value twice in an axis": (ARGUMENTS + "      seed: [1, 1.0]\n", 9, "seed"),
    "exclude by an unknown axis": (AXES + "    exclude:\n      - {dtype: half}\n", 12, "dtype"),
    "exclude that matches nothing": (AXES + "    exclude:\n      - {tp: 4}\n", 12, "groups[0].exclude[0]"),
    "include that lacks an axis": (AXES + "    include:\n      - {tp: 4}\n", 12, "max-model-len"),
    "include of a point that is there": (
        AXES + "    include:\n      - {tp: 1, max-model-len: 100}\n",
        6,
        "a-tp1-len100",
    ),
    "the same point in two groups": (HEAD + GROUP + "  - name: b\n    model: org/model\n", 8, "same configuration"),
    "the same group name": (HEAD + GROUP + "  - name: a\n    model: org/other\n", 8, "groups[1].name"),
    "more than 10000 points": (
        ARGUMENTS + f"      seed: {list(range(101))}\n      max-num-seqs: {list(range(1, 101))}\n",
        6,
        "10100",
    ),
}


@pytest.mark.parametrize("name", PLACED)
def test_a_bad_matrix_is_refused_with_its_file_line_and_field(name: str) -> None:
    """Every refusal is a usage error that names file, line and field."""
    text, line, field = PLACED[name]
    with pytest.raises(UsageError) as caught:
        load_text(text)
    assert caught.value.exit_code == 2
    assert f"{FILE}:{line}:" in caught.value.message
    assert field in caught.value.message


@pytest.mark.parametrize("name", PLACED)
def test_a_refusal_says_what_to_do(name: str) -> None:
    """Every refusal ends in a remedy."""
    with pytest.raises(UsageError) as caught:
        load_text(PLACED[name][0])
    assert caught.value.remedy
    assert str(caught.value).endswith(caught.value.remedy)


def test_every_problem_of_a_document_is_named_at_once() -> None:
    """Two wrong fields give two lines, so that a user mends both before the next try."""
    with pytest.raises(UsageError) as caught:
        load_text(HEAD + "colour: red\n" + GROUP + "    modle: x\n")
    assert "colour" in caught.value.message
    assert "groups[0].modle" in caught.value.message


def test_a_file_that_is_too_large_is_refused() -> None:
    """A megabyte is more than any matrix; the file is named."""
    with pytest.raises(UsageError, match=f"{FILE}.*bytes") as caught:
        load_text(HEAD + GROUP + "#" * (1 << 20))
    assert caught.value.remedy


def test_bytes_that_are_not_utf8_are_refused() -> None:
    """The file and the place of the first bad byte are named."""
    with pytest.raises(UsageError, match=f"{FILE}.*byte 9 is not UTF-8") as caught:
        load_text(b"version: \xff\n")
    assert caught.value.remedy


@pytest.mark.parametrize("missing", ["nowhere.yaml", "."])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, missing: str) -> None:
    """A missing file and a folder are usage errors that name the path."""
    with pytest.raises(UsageError, match=str(tmp_path)) as caught:
        load_matrix(tmp_path / missing)
    assert caught.value.remedy


def test_nothing_left_after_exclude_is_its_own_error() -> None:
    """A fine matrix without a point ends in exit code 3, not 2."""
    with pytest.raises(NothingSelectedError, match=FILE) as caught:
        load_text(AXES + "    exclude:\n      - {tp: [1, 2]}\n")
    assert caught.value.exit_code == 3
    assert caught.value.remedy


@pytest.mark.parametrize(
    "groups",
    [
        "".join(f"  - {{name: g{n}, model: m{n}, arguments: {{seed: {list(range(5001))}}}}}\n" for n in range(2)),
        f"  - name: a\n    model: m\n    arguments: {{seed: 0}}\n    include:\n"
        f"      - {{seed: {list(range(1, 201))}, max-num-seqs: {list(range(1, 60))}}}\n",
    ],
    ids=["over all groups", "through include"],
)
def test_no_way_leads_past_the_limit_of_points(groups: str) -> None:
    """More than 10000 points are refused, whichever way they are written."""
    with pytest.raises(UsageError, match="10000"):
        load_text(HEAD + "groups:\n" + groups)


def test_two_groups_cannot_give_two_points_the_same_id() -> None:
    """Ids name points on the command line and in the store: a clash is refused where it is written."""
    text = HEAD + "groups:\n  - {name: a, model: m, arguments: {tp: [2]}}\n  - {name: a-tp2, model: other}\n"
    with pytest.raises(UsageError, match=f"{FILE}:7:.*a-tp2"):
        load_text(text)


YAML_PIECES = st.sampled_from(
    ["version: 1\n", "name: m\n", "groups:\n", "  - name: a\n", "    model: x\n", "    arguments:\n", "      tp: ",
     "[1, 2]", "{a: b}", "- ", "  ", "\n", "!!bool x", "!!int ''", "!!timestamp x", "!!float .", "null", "&a ", "*a",
     "<<: ", "? ", ": ", "'", '"', "|\n", ">\n", "1e999", ".inf", "-.nan", "2024-13-45", "0o7", "1:2:3", "---\n", "\t",
     "image: i:v1\n", "defaults:\n", "exclude: ", "include: ", "\x85", "\u2028", "\ufeff", "%YAML 9.9\n", "yes"]
)  # fmt: skip


@given(
    st.one_of(st.binary(max_size=200), st.lists(YAML_PIECES, max_size=25).map(lambda parts: "".join(parts).encode()))
)
@example((ARGUMENTS + "      a: !!bool x\n").encode())
@example((ARGUMENTS + "      a: !!int ''\n").encode())
@example((ARGUMENTS + "      a: !!timestamp x\n").encode())
@example((ARGUMENTS + "      a: !!python/name:os.system x\n").encode())
@example((ARGUMENTS + "      a: {b: null}\n").encode())
@example((ARGUMENTS + "      a: [[null]]\n").encode())
@example((ARGUMENTS + "      a: " + "9" * 5000 + "\n").encode())
@example((ARGUMENTS + "      a: \ud800\n").encode("utf-8", "surrogatepass"))
@example(("? " * 60).encode())
@example(b"\xff\xfea\x00")
def test_whatever_is_in_the_file_only_kprofs_own_errors_come_out(content: bytes) -> None:
    """Random bytes and broken YAML give an error message or a matrix, never a traceback."""
    with contextlib.suppress(KprofError):
        assert load_text(content).points
