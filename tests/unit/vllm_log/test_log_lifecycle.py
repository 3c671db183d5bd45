"""How far a start-up came, and where the next one of the same file begins."""

import pytest

from orchestrator.vllm_log import parse_log
from tests.unit.vllm_log.log_lines import READY, read, read_all, record, server

ENGINE = "Initializing a V1 LLM engine (v{}) with config: model='m', max_seq_len=4096, tensor_parallel_size=1"
WEIGHTS = "Model loading took {} GiB memory and 1.000000 seconds"
INIT = record("init engine (profile, create kv cache, warmup model) took 9.00 seconds")
NO_ROOM = record("ValueError: No available memory for the cache blocks.", level="ERROR")
INTERRUPT = "KeyboardInterrupt: terminated"


@pytest.mark.parametrize(
    ("lines", "state", "ready"),
    [
        pytest.param((server("0.11.0"),), "starting", None, id="begun"),
        pytest.param((server("0.11.0"), record(WEIGHTS.format(9))), "starting", None, id="stops after loading"),
        pytest.param((server("0.11.0"), INIT), "ready", True, id="engine is up"),
        pytest.param((record("Starting vLLM API server 0 on http://0.0.0.0:8000"),), "ready", True, id="0.9.1-0.17"),
        pytest.param((record("Starting vLLM server on http://0.0.0.0:8000"),), "ready", True, id="0.18+"),
        pytest.param(("INFO:     Application startup complete.",), "ready", True, id="uvicorn"),
        pytest.param(("INFO:     Uvicorn running on http://0.0.0.0:8000",), "ready", True, id="until 0.7.2"),
        pytest.param(
            ("INFO 07-17 23:41:30 model_runner.py:851] Graph capturing finished in 12 secs.",), "ready", True, id="V0"
        ),
        pytest.param((server("0.11.0"), NO_ROOM), "died", False, id="failed"),
        pytest.param((server("0.11.0"), INTERRUPT), "interrupted", False, id="interrupted"),
        pytest.param((server("0.11.0"), READY, INTERRUPT), "ready", True, id="stopped later"),
        pytest.param(
            (server("0.11.0"), INTERRUPT, record("RuntimeError: Engine core initialization failed. See root cause "
                                                 "above. Failed core proc(s): {}", level="ERROR")),
            "interrupted", False, id="interrupted, then consequences",
        ),
        pytest.param(
            (READY, record("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB.", level="ERROR")),
            "died", True, id="dies at work",
        ),
    ],
)  # fmt: skip
def test_the_state_says_how_far_it_came(lines: tuple[str, ...], state: str, ready: bool | None) -> None:
    """`engine_ready` is None as long as the log does not tell."""
    found = read(*lines)
    assert (found.state, found.engine_ready) == (state, ready)
    document = found.to_json("x")
    assert (document["state"], document["engine_ready"]) == (state, ready)


@pytest.mark.parametrize("raw", [b"", b"\n\n", b"hello\nworld\n", b"\x00\xff" * 99])
def test_a_log_of_something_else_tells_nothing(raw: bytes) -> None:
    """One start-up of which nothing is known."""
    (found,) = parse_log(raw)
    assert not found.tells_something
    assert (found.state, found.facts, found.failure) == ("starting", {}, None)


@pytest.mark.parametrize("middle", [(READY,), (NO_ROOM,), (INIT,)], ids=["ready", "failed", "engine up"])
@pytest.mark.parametrize(
    "banner",
    [
        server("0.12.0"),
        record("       █     █     █▄   ▄█", process="APIServer") + "\n"
        + record(" ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.12.0", process="APIServer"),
        record("vLLM server version 0.12.0, serving model m", process="APIServer"),
    ],
    ids=["until 0.14", "0.15+", "without logo"],
)  # fmt: skip
def test_a_new_banner_begins_another_start_up(banner: str, middle: tuple[str, ...]) -> None:
    """Nothing of the first is in the second."""
    first, second = read_all(server("0.11.0"), record(WEIGHTS.format(9)), *middle, banner, INIT)
    assert (first.number, first.vllm_version, first.facts["weights_gib"]) == (1, "0.11.0", 9.0)
    assert (second.number, second.vllm_version) == (2, "0.12.0")
    assert "weights_gib" not in second.facts
    assert second.failure is None


@pytest.mark.parametrize("version", ["0.11.0", "0.12.0"])
def test_a_start_up_that_was_killed_without_a_word_ends_at_the_next_banner(version: str) -> None:
    """The kernel kills a container while it loads; the next one writes into the same file."""
    found = read_all(server("0.11.0"), record(WEIGHTS.format(9), pid=5), server(version), READY)
    assert [(one.vllm_version, one.state) for one in found] == [("0.11.0", "died"), (version, "ready")]
    assert "weights_gib" not in found[1].facts


def test_an_engine_that_starts_again_under_another_pid_begins_another_start_up() -> None:
    """A script builds one engine after the other; there is no server and no banner."""
    lines = []
    for pid, gib in ((5, 9), (6, 7)):
        lines += [record(ENGINE.format("0.19.0"), pid=pid), record(WEIGHTS.format(gib), pid=pid)]
        lines.append(record("init engine (profile, create kv cache, warmup model) took 9.00 seconds", pid=pid))
    found = read_all(*lines)
    assert [(one.facts["weights_gib"], one.vllm_version) for one in found] == [(9.0, "0.19.0"), (7.0, "0.19.0")]


def test_engines_of_one_server_are_one_start_up() -> None:
    """Data parallelism starts several engines beside each other, the second while the first is up already."""
    lines = [server("0.19.0")]
    for rank, pid in ((0, 5), (1, 6)):
        name = f"EngineCore_DP{rank}"
        lines += [record(words, process=name, pid=pid) for words in (
            ENGINE.format("0.19.0"), WEIGHTS.format(9),
            "init engine (profile, create kv cache, warmup model) took 9.00 seconds",
        )]  # fmt: skip
    found = read(*lines, READY)
    assert len(found.ranks) == 2


def test_workers_that_load_again_in_other_processes_begin_another_start_up() -> None:
    """Somebody cut out the start of the second attempt."""
    found = read_all(
        record(WEIGHTS.format(9), process="Worker_TP0", pid=5), NO_ROOM,
        record(WEIGHTS.format(7), process="Worker_TP0", pid=6), READY,
    )  # fmt: skip
    assert [(one.facts["weights_gib"], one.state) for one in found] == [(9.0, "died"), (7.0, "ready")]


def test_ranks_that_fail_after_each_other_are_one_start_up() -> None:
    """The second rank prints its figures after the first one failed."""
    found = read(
        server("0.19.0"),
        record(WEIGHTS.format(9), process="Worker_TP0", pid=5),
        record("ValueError: No available memory for the cache blocks.", process="Worker_TP0", pid=5, level="ERROR"),
        record(WEIGHTS.format(9), process="Worker_TP1", pid=6),
        record("Available KV cache memory: -1.00 GiB", process="Worker_TP1", pid=6),
    )
    assert sorted(found.ranks) == ["TP0", "TP1"]


def test_durations_of_all_stages_are_kept() -> None:
    """Load, compile, profile, graph capture, engine; of several compile lines the last, which counts all."""
    facts = read(
        record("Model loading took 9.0 GiB memory and 3.250000 seconds"),
        record("torch.compile took 12.50 s in total"),
        record("torch.compile and initial profiling/warmup run together took 15.50 s in total"),
        record("Memory profiling takes 17.96 seconds. Total non KV cache memory: 17.12GiB; x"),
        record("Graph capturing finished in 21 secs, took 0.55 GiB"),
        record("init engine (profile, create kv cache, warmup model) took 41.20 s (compilation: 12.50 s)"),
    ).facts
    assert {name: value for name, value in facts.items() if name.endswith("_seconds")} == {
        "model_load_seconds": 3.25, "profile_seconds": 17.96, "graph_capture_seconds": 21.0,
        "engine_init_seconds": 41.2, "compile_seconds": 15.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "version"),
    [
        (server("0.9.0.1"), "0.9.0.1"),
        (record("vLLM API server version 0.19.2rc1.dev206+g1234abc"), "0.19.2rc1.dev206+g1234abc"),
        (record("Initializing an LLM engine (v0.6.3.post1) with config: model='m'", process=""), "0.6.3.post1"),
        (record("Initializing a V1 LLM engine (v0.28.0) with config: model='m'"), "0.28.0"),
        (record("transformers version 4.51.3"), None),
        (record("NCCL version 2.27.3+cuda12.9"), None),
    ],
)
def test_the_version_is_the_one_of_vllm(line: str, version: str | None) -> None:
    """Other libraries print their versions too."""
    assert read(line).vllm_version == version
