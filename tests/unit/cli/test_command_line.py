"""What a user sees of the commands: help, exit codes, one clear error, and output that parses."""

import csv
import io
import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml

from orchestrator import __version__
from orchestrator.cli.app import app, main
from orchestrator.resources import shipped
from orchestrator.store import open_store
from tests.fakes.matrix import document, group, points
from tests.fakes.results import document as result_document

H100 = str(shipped("matrices") / "h100.yaml")
LOGS = Path(__file__).parents[2] / "data" / "logs"
COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def kprof(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Return a function that runs kprof in an empty folder and gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KPROF_STORE", raising=False)

    def call(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kprof", *argv])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


def _process(*argv: str, cwd: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "orchestrator.cli", *argv]
    return subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, timeout=30, check=False)


def _bad_matrix(tmp_path: Path) -> str:
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(document(group(arguments={"tp": -1}))))
    return str(path)


# Help


def test_help_has_an_example_and_the_exit_codes(kprof: Call) -> None:
    """The first thing a user types shows what to type next."""
    code, out, _ = kprof("--help")
    assert code == 0
    assert "Exit codes" in out
    assert "Example" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_of_itself(kprof: Call, command: str) -> None:
    """Copied, the example is a command."""
    code, out, err = kprof(command, "--help")
    assert (code, err) == (0, "")
    _, found, example = " ".join(out.split()).partition("Example: ")
    assert found
    assert f"kprof {command}" in example


def test_the_job_and_its_readers_are_there() -> None:
    """The commands that this version promises."""
    assert {"sweep", "render", "summary", "show", "logs", "parse"} <= set(COMMANDS)


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    """`kprof --help` answers at once: no client library, no database, no schema."""
    code = (
        "import sys\nsys.argv = ['kprof', '--help']\nfrom orchestrator.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'kubernetes', 'sqlalchemy', 'aiohttp', 'pydantic', 'yaml'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr


def test_version(kprof: Call) -> None:
    """One line with name and version."""
    assert kprof("--version") == (0, f"kprof {__version__}\n", "")


# Errors


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("sweep", "nowhere.yaml"), 2),
        (("sweep", "nowhere.yaml", "--dry-run", "--format", "json"), 2),
        (("sweep", "BAD", "--on", "local", "--simulate"), 2),
        (("render", "BAD"), 2),
        (("sweep", H100, "--only", "no-such-*", "--on", "local"), 3),
        (("render", H100, "--only", "no-such-*"), 3),
        (("sweep", H100, "--on", "local", "--store", "mysql://host/x"), 2),
        (("sweep", H100, "--on", "local", "--store", "no/such/folder/k.db"), 2),
        (("summary",), 3),
        (("summary", "--store", "mysql://host/x"), 2),
        (("show", "qwen3-32b-tp1"), 3),
        (("logs", "qwen3-32b-tp1"), 3),
        (("parse", "nowhere.log"), 2),
        (("parse", "nowhere.log", "--format", "json"), 2),
        (("parse", "."), 2),
    ],
    ids=lambda value: " ".join(Path(word).name for word in value) if isinstance(value, tuple) else str(value),
)
def test_a_mistake_is_one_clear_error_and_creates_nothing(
    kprof: Call, tmp_path: Path, argv: tuple[str, ...], code: int
) -> None:
    """On stderr, with what to do next; stdout stays empty for the program that reads it."""
    bad = _bad_matrix(tmp_path)
    found, out, err = kprof(*(bad if word == "BAD" else word for word in argv))
    assert (found, out) == (code, "")
    assert err.startswith("error: ")
    assert err.count("error: ") == 1
    assert len(err.splitlines()) >= 2
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.mark.parametrize(
    "argv",
    [
        ("no-such-command",),
        ("sweep",),
        ("sweep", H100, "--on", "mars"),
        ("sweep", H100, "--max-gpus", "0"),
        ("sweep", H100, "--max-parallel", "-1"),
        ("sweep", H100, "--no-such-option"),
        ("summary", "--format", "pdf"),
    ],
)
def test_a_wrong_option_is_a_usage_error(kprof: Call, argv: tuple[str, ...]) -> None:
    """Exit code 2, nothing on stdout, and what was wrong on stderr."""
    code, out, err = kprof(*argv)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert err


def test_a_bad_matrix_stops_a_real_process_with_two(tmp_path: Path) -> None:
    """The same through the interpreter, as a shell sees it."""
    done = _process("render", _bad_matrix(tmp_path), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: ")
    assert b"tensor-parallel-size" in done.stderr


def test_nothing_selected_stops_a_real_process_with_three(tmp_path: Path) -> None:
    """With the ids that could have been meant."""
    done = _process("render", H100, "--only", "nope", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"qwen3-0.6b" in done.stderr


@pytest.mark.parametrize("problem", ["unknown context", "missing kubeconfig", "broken kubeconfig"])
def test_a_cluster_that_is_not_there_stops_a_real_process_with_four(tmp_path: Path, problem: str) -> None:
    """One error, no token in it, and nothing created in the store."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t0ps3cret"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }
    path = tmp_path / "config"
    if problem != "missing kubeconfig":
        path.write_text(yaml.safe_dump(config) if problem == "unknown context" else "t0ps3cret: [")
    extra = ("--context", "nope") if problem == "unknown context" else ()
    done = _process("sweep", H100, "--kubeconfig", str(path), *extra, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (4, b""), done.stderr
    assert done.stderr.count(b"error: ") == 1
    assert b"Traceback" not in done.stderr
    assert b"t0ps3cret" not in done.stderr
    if (tmp_path / "kprof.db").exists():
        assert open_store(str(tmp_path / "kprof.db")).latest_run() is None


# render and --dry-run


def test_render_gives_a_stream_that_kubectl_can_apply(kprof: Call) -> None:
    """One pod for each point, each with a name of its own."""
    code, out, err = kprof("render", H100)
    pods = list(yaml.safe_load_all(out))
    assert (code, err) == (0, "")
    assert [pod["kind"] for pod in pods] == ["Pod"] * 11
    assert len({pod["metadata"]["name"] for pod in pods}) == 11
    assert "&id" not in out


def test_render_selects_simulates_and_places(kprof: Call) -> None:
    """`--only`, `--simulate` and `--namespace` change what is printed."""
    _, out, _ = kprof("render", H100, "--only", "qwen3-0.6b*", "--simulate", "--simulator-image", "sim:1", "-n", "team")
    (pod,) = yaml.safe_load_all(out)
    assert pod["metadata"]["namespace"] == "team"
    assert pod["metadata"]["labels"]["kprof.io/point-id"] == "qwen3-0.6b"
    assert pod["spec"]["containers"][0]["image"] == "sim:1"


def test_a_dry_run_lists_and_creates_nothing(kprof: Call, tmp_path: Path) -> None:
    """Every point with its devices and arguments, as JSON where a program reads."""
    code, out, _ = kprof("sweep", H100, "--dry-run", "--format", "json")
    plan = json.loads(out)["points"]
    assert code == 0
    assert len(plan) == 11
    assert plan[0]["devices"] == max(item["devices"] for item in plan)
    assert all(item["argv"] for item in plan)
    assert list(tmp_path.iterdir()) == []
    assert "vllm serve" in kprof("sweep", H100, "--dry-run")[1]


# parse


def test_parse_prints_one_object_for_each_start_up(kprof: Call) -> None:
    """One per line, in order, over all files."""
    files = [str(LOGS / name) for name in ("cpu-0.27.1_info_ok.log", "083-v0230-utf16-wsl-negative-kv.log")]
    code, out, err = kprof("parse", *files, "--format", "json")
    found = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (1, "")
    assert [item["log"] for item in found] == [Path(name).name for name in files]
    assert [item["engine_ready"] for item in found] == [True, False]
    assert found[1]["failure"]["kind"] == "kv.no_room"
    assert found[1]["facts"]["kv_cache_gib"] == -2.14
    for field in ("start", "vllm_version", "platform", "ranks", "checks", "evidence"):
        assert field in found[0]


def test_parse_reads_a_pipe(tmp_path: Path) -> None:
    """Two starts in one stream are two objects."""
    both = (LOGS / "cpu-0.32.0_tp3_indivisible.log").read_bytes() + (LOGS / "cpu-0.32.0_tp2.log").read_bytes()
    done = _process("parse", "-", "--format", "json", cwd=tmp_path, stdin=both)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (1, b"")
    assert [(item["log"], item["start"], item["engine_ready"]) for item in found] == [("-", 1, False), ("-", 2, True)]


def test_parse_of_a_good_log_ends_in_zero(kprof: Call) -> None:
    """And tells people the same in words."""
    code, out, _ = kprof("parse", str(LOGS / "078-v0221-mlops-h100.log"))
    assert code == 0
    assert "weights_gib" in out
    assert "29.08" in out


def test_hostile_text_in_a_log_does_not_drive_the_terminal(kprof: Call, tmp_path: Path) -> None:
    """Whatever is printed for people is printable."""
    log = tmp_path / "evil.log"
    log.write_bytes(
        "ValueError: No available memory for the cache blocks \x1b]0;owned\x07 \x9b2J \u202egnp \x08\n".encode()
    )
    out = kprof("parse", str(log))[1]
    assert "No available memory" in out
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\x08"} & set(out)


# Readers of the store


@pytest.fixture
def stored(tmp_path: Path) -> str:
    """Return a store with one simulated run of two points."""
    found = points(group("good", label="Good"), group("bad", label="Bad", arguments={"seed": 1}, expect="kv.no_room"))
    path = str(tmp_path / "results.db")
    store = open_store(path)
    run = store.create_run("abcd", "m", "d", "local", "SIMULATED", found)
    for point, kind in zip(found, (None, "kv.no_room"), strict=True):
        document = result_document(point, kind=kind) | {"source": "SIMULATED"}
        store.record(run.id, document, zlib.compress(b"raw log of it\n"), 14, truncated=False)
    store.close()
    return path


def test_summary_speaks_every_format(kprof: Call, stored: str) -> None:
    """Each parses as what it says it is, and each is marked."""
    table = kprof("summary", "--store", stored)
    text = kprof("summary", "--store", stored, "--format", "markdown")
    rows = kprof("summary", "1", "--store", stored, "--format", "csv")
    data = kprof("summary", "abcd", "--store", f"sqlite:///{stored}", "--format", "json")
    assert [found[0] for found in (table, text, rows, data)] == [0] * 4
    assert all("SIMULATED" in found[1] for found in (table, text, rows, data))
    assert "| Good | 14.99 |" in text[1]
    assert [row["outcome"] for row in csv.DictReader(io.StringIO(rows[1]))] == ["ready", "failed"]
    assert [row["model"] for row in json.loads(data[1])["rows"]] == ["Good"]


def test_the_store_may_come_from_the_environment(kprof: Call, stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """KPROF_STORE is the default of --store."""
    monkeypatch.setenv("KPROF_STORE", stored)
    assert kprof("summary")[0] == 0


def test_show_prints_one_result_with_its_evidence(kprof: Call, stored: str) -> None:
    """For people and for programs."""
    data = json.loads(kprof("show", "bad", "--store", stored, "--format", "json")[1])
    assert (data["point"], data["outcome"], data["failure"]["kind"]) == ("bad", "failed", "kv.no_room")
    words = kprof("show", "bad", "--store", stored)[1]
    assert "kv.no_room" in words
    assert "do this" in words
    assert "SIMULATED" in words


def test_logs_prints_the_raw_log(tmp_path: Path, stored: str) -> None:
    """Byte for byte, so that it can be piped."""
    done = _process("logs", "good", "--store", stored, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, b"raw log of it\n")


@pytest.mark.parametrize("argv", [("show", "nope"), ("logs", "nope"), ("summary", "77")])
def test_what_is_not_in_the_store_is_nothing_selected(kprof: Call, stored: str, argv: tuple[str, ...]) -> None:
    """Exit code 3, with what there is."""
    code, out, err = kprof(*argv, "--store", stored)
    assert (code, out) == (3, "")
    assert err.startswith("error: ")


def test_reading_creates_no_store(kprof: Call, tmp_path: Path) -> None:
    """A mistyped path stays a mistake, however the address is written."""
    for url in ("typo.db", "sqlite:///typo.db", f"sqlite:////{tmp_path}/typo.db"):
        assert kprof("summary", "--store", url)[0] == 3
    assert list(tmp_path.iterdir()) == []
