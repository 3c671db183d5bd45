"""`kprof parse` as a user calls it: output, exit codes, inputs of every kind."""

import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.cli.app import main
from tests.unit.vllm_log.log_lines import READY, record, server, text

Call = Callable[..., tuple[int, str, str]]
GOOD = text(
    server("0.27.1"),
    record("non-default args: {'max_model_len': 2048, 'block_size': 16}"),
    record("Available KV cache memory: 58.11 GiB"),
    record("Engine 000: vllm cache_config_info with initialization after num_gpu_blocks is: 29751"),
    record("GPU KV cache size: 476,016 tokens"),
    READY,
)
FAILED = text(server("0.11.0"), record("ValueError: No available memory for the cache blocks.", level="ERROR"))
NEW = text(server("0.34.0"), record("Memory for the frobnicator: 1.5 GiB"), record("Memory for the frobnicator: 2 GiB"))
PAGE = (
    "# HELP vllm:cache_config_info x\n# TYPE vllm:cache_config_info gauge\n"
    'vllm:cache_config_info{{block_size="16",engine="0",kv_cache_size_tokens="{tokens}",num_gpu_blocks="{blocks}"}} 1\n'
)


@pytest.fixture
def kprof(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Return a function that runs kprof in an empty folder and gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*argv: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kprof", *argv])
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


def _file(name: str, raw: bytes) -> str:
    Path(name).write_bytes(raw)
    return name


def test_a_good_log_is_shown_with_meaning_and_line(kprof: Call) -> None:
    """Each fact with the line that proves it."""
    code, out, err = kprof("parse", _file("good.log", GOOD))
    assert (code, err) == (0, "")
    assert "good.log start 1: vllm 0.27.1, ready" in out
    (tokens,) = [line for line in out.splitlines() if line.strip().startswith("kv_cache_tokens")]
    assert tokens.split()[1:4] == ["476016", "line", "5"]
    assert "max_concurrency x max_model_len" in tokens


def test_json_is_one_object_for_each_start_up(kprof: Call) -> None:
    """In order, over all files; nothing else on stdout."""
    code, out, _ = kprof("parse", _file("a.log", GOOD + FAILED), _file("b.log", GOOD), "--format", "json")
    found = [json.loads(line) for line in out.splitlines()]
    assert [(one["log"], one["start"], one["state"]) for one in found] == [
        ("a.log", 1, "ready"), ("a.log", 2, "died"), ("b.log", 1, "ready"),
    ]  # fmt: skip
    assert code == 1


def test_a_failed_start_up_exits_with_1_and_says_why(kprof: Call) -> None:
    """Kind, line and remedy."""
    code, out, _ = kprof("parse", _file("x.log", FAILED))
    assert code == 1
    assert "FAILED kv.no_room" in out
    assert "line 2" in out
    assert "remedy:" in out


@pytest.mark.parametrize("name", [("-",), ()], ids=["dash", "nothing"])
def test_standard_input_is_read(kprof: Call, name: tuple[str, ...]) -> None:
    """`kubectl logs pod | kprof parse -`."""
    code, out, _ = kprof("parse", *name, "--format", "json", stdin=GOOD)
    assert code == 0
    assert (json.loads(out)["log"], json.loads(out)["facts"]["kv_cache_gib"]) == ("-", 58.11)


@pytest.mark.parametrize(
    "raw",
    [gzip.compress(GOOD), GOOD.decode().encode("utf-16"), gzip.compress(GOOD.decode().encode("utf-16"))],
    ids=["gzip", "UTF-16", "UTF-16 in gzip"],
)
def test_files_are_read_as_they_are(kprof: Call, raw: bytes) -> None:
    """Packed by a log rotation, or written by Windows; from a file and from a pipe."""
    for call in (("parse", _file("x.gz", raw), "--format", "json"), ("parse", "-", "--format", "json")):
        code, out, _ = kprof(*call, stdin=raw)
        assert (code, json.loads(out)["facts"]["kv_cache_tokens"]) == (0, 476016)


@pytest.mark.parametrize("raw", [gzip.compress(GOOD)[:-9], b"\x1f\x8bnonsense", gzip.compress(GOOD)[:30] + b"x" * 60])
@pytest.mark.parametrize("option", ["--format=json", "--unread"])
def test_a_damaged_gzip_file_is_one_clear_error(kprof: Call, raw: bytes, option: str) -> None:
    """Exit code 2, what and where, no traceback."""
    code, out, err = kprof("parse", _file("x.gz", raw), option)
    assert (code, out) == (2, "")
    assert "x.gz" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("option", ["--format=json", "--unread", "--format=human"])
def test_a_missing_file_is_a_usage_error(kprof: Call, option: str) -> None:
    """Exit code 2, and the name."""
    code, out, err = kprof("parse", "nowhere.log", option)
    assert (code, out) == (2, "")
    assert "nowhere.log" in err


@pytest.mark.parametrize("raw", [b"", b"hello\nworld\n"])
def test_a_log_of_something_else_is_said_to_be_one(kprof: Call, raw: bytes) -> None:
    """Stdout stays empty, so that a pipe gets no empty result."""
    code, out, err = kprof("parse", _file("x.log", raw), "--format", "json")
    assert (code, out) == (1, "")
    assert "x.log: no vLLM start-up" in err


@pytest.mark.parametrize(("blocks", "tokens", "code"), [(29751, 476016, 0), (29750, 476016, 1), (29751, 470000, 1)])
def test_a_log_is_checked_against_the_metrics_page(kprof: Call, blocks: int, tokens: int, code: int) -> None:
    """The page of the same server agrees, or the exit code says so; the figures stay."""
    page = _file("page.txt", PAGE.format(blocks=blocks, tokens=tokens).encode())
    ended, out, _ = kprof("parse", _file("x.log", GOOD), "--metrics", page, "--format", "json")
    document = json.loads(out)
    checks = {check["name"]: check["ok"] for check in document["checks"] if check["name"].startswith("metrics")}
    assert (ended, checks) == (code, {"metrics_blocks": blocks == 29751, "metrics_tokens": tokens == 476016})
    assert document["facts"]["kv_cache_tokens"] == 476016
    _, out, _ = kprof("parse", "x.log", "--metrics", page)
    assert ("BROKEN" in out) == (code == 1)


def test_the_last_start_up_is_the_one_that_answers_metrics(kprof: Call) -> None:
    """The page belongs to the server that runs now."""
    page = _file("page.txt", PAGE.format(blocks=29751, tokens=476016).encode())
    _, out, _ = kprof("parse", _file("x.log", FAILED + GOOD), "--metrics", page, "--format", "json")
    first, second = (json.loads(line) for line in out.splitlines())
    assert [check for check in first["checks"] if check["name"].startswith("metrics")] == []
    assert len([check for check in second["checks"] if check["name"].startswith("metrics")]) == 2


@pytest.mark.parametrize("page", [None, b"", b"not a page", b"# TYPE go_info gauge\ngo_info 1\n", b"\xff\xfe\x00"])
def test_a_page_that_is_none_is_a_usage_error(kprof: Call, page: bytes | None) -> None:
    """Missing, empty, or of another program."""
    name = "page.txt" if page is None else _file("page.txt", page)
    code, out, err = kprof("parse", _file("x.log", GOOD), "--metrics", name)
    assert (code, out) == (2, "")
    assert "page.txt" in err


def test_unread_lines_are_shown_with_file_line_and_count(kprof: Call) -> None:
    """Exit code 1 when there are any."""
    code, out, err = kprof("parse", "--unread", _file("new.log", NEW))
    assert (code, err) == (1, "")
    assert out.startswith("new.log:2: 2 x ")
    assert "frobnicator: 1.5 GiB" in out
    code, out, _ = kprof("parse", "--unread", "new.log", "--format", "json")
    assert code == 1
    assert json.loads(out) == {
        "log": "new.log", "line_number": 2, "count": 2, "line": record("Memory for the frobnicator: 1.5 GiB"),
    }  # fmt: skip


@pytest.mark.parametrize("form", ["human", "json"])
def test_a_log_that_is_understood_leaves_nothing_unread(kprof: Call, form: str) -> None:
    """No output, exit code 0."""
    assert kprof("parse", "--unread", _file("x.log", GOOD), "--format", form) == (0, "", "")


@pytest.mark.parametrize("pack", [gzip.compress, lambda raw: raw.decode().encode("utf-16")], ids=["gzip", "UTF-16"])
def test_unread_lines_are_found_in_every_kind_of_file(kprof: Call, pack: Callable[[bytes], bytes]) -> None:
    """The same file that `kprof parse` reads."""
    code, out, _ = kprof("parse", "--unread", _file("new.log", pack(NEW)))
    assert code == 1
    assert "frobnicator" in out
