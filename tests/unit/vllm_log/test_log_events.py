"""What a stream tells while it runs: facts, stages, readiness and failure, as soon as their line is complete."""

from orchestrator.vllm_log import Event, LogParser, parse_log
from tests.unit.vllm_log.log_lines import READY, record, server, text

LOG = (
    "noise",
    server("0.28.0"),
    record("Starting to load model m..."),
    record("Model loading took 14.99 GiB memory and 7.400000 seconds"),
    "noise",
    record("Available KV cache memory: 58.11 GiB"),
    record("GPU KV cache size: 476,016 tokens, Maximum concurrency for 8,192 tokens per request: 58.11x"),
    record("init engine (profile, create kv cache, warmup model) took 41.20 s"),
    READY,
)


def _facts(events: list[Event]) -> list[tuple[str, int, float | None]]:
    return [(event.value, event.line_number, event.figure) for event in events if event.name == "fact"]


def test_facts_come_in_the_order_of_their_lines() -> None:
    """Each with its figure and the number of its line."""
    events = LogParser().feed(text(*LOG))
    assert _facts(events) == [
        ("weights_gib", 4, 14.99),
        ("model_load_seconds", 4, 7.4),
        ("kv_cache_gib", 6, 58.11),
        ("kv_cache_tokens", 7, 476016.0),
        ("concurrency_tokens", 7, 8192.0),
        ("max_concurrency", 7, 58.11),
        ("engine_init_seconds", 8, 41.2),
    ]
    assert [event.line_number for event in events] == sorted(event.line_number for event in events)


def test_stages_and_readiness_come_between_them() -> None:
    """A stage is told once, when the log enters it."""
    events = [event for event in LogParser().feed(text(*LOG)) if event.name != "fact"]
    assert [(event.name, event.value, event.line_number) for event in events] == [
        ("stage", "load", 3),
        ("stage", "profile", 4),
        ("stage", "kv_cache", 6),
        ("stage", "graph_capture", 7),
        ("stage", "warmup", 8),
        ("ready", "", 9),
        ("stage", "runtime", 9),
    ]


def test_a_fact_is_told_with_its_newline_and_not_before() -> None:
    """Half a line may still become another number."""
    parser = LogParser()
    line = text(record("Available KV cache memory: 58.11 GiB"))
    for place in range(len(line) - 1):
        assert parser.feed(line[place : place + 1]) == []
    assert _facts(parser.feed(line[-1:])) == [("kv_cache_gib", 1, 58.11)]


def test_what_is_known_can_be_asked_for_at_any_time() -> None:
    """`current` is the start-up so far; asking changes nothing."""
    parser = LogParser()
    parser.feed(text(*LOG[:6]))
    assert (parser.current.vllm_version, parser.current.state) == ("0.28.0", "starting")
    assert parser.current.facts["kv_cache_gib"] == 58.11
    assert "kv_cache_tokens" not in parser.current.facts
    parser.feed(text(*LOG[6:]))
    assert parser.current.state == "ready"
    assert [one.to_json("x") for one in parser.close()] == [one.to_json("x") for one in parse_log(text(*LOG))]


def test_a_last_line_without_its_newline_counts_in_the_result() -> None:
    """The stream ended; the line is what it is."""
    parser = LogParser()
    assert parser.feed(text(*LOG).rstrip(b"\n").removesuffix(text(READY).rstrip(b"\n")))
    parser.feed(text(READY).rstrip(b"\n"))
    assert parser.current.engine_ready is True  # the engine is up, by the line before
    (found,) = parser.close()
    assert found.state == "ready"


def test_a_failure_is_told_once_with_its_kind() -> None:
    """Its repetitions by other processes are no new failures."""
    no_room = "ValueError: No available memory for the cache blocks."
    events = LogParser().feed(
        text(
            record(no_room, process="Worker_TP0", pid=1, level="ERROR"),
            record(no_room, process="Worker_TP1", pid=2, level="ERROR"),
            no_room,
        )
    )
    assert [event for event in events if event.name == "failure"] == [Event("failure", "kv.no_room", 1)]


def test_ready_is_told_once() -> None:
    """Several front-ends say it each."""
    events = LogParser().feed(text(READY, READY, "INFO:     Application startup complete."))
    assert [event.line_number for event in events if event.name == "ready"] == [1]


def test_line_numbers_go_on_over_start_ups_and_chunks() -> None:
    """They count lines of the file."""
    parser = LogParser()
    raw = text(*LOG, *LOG)
    events = [event for start in range(0, len(raw), 100) for event in parser.feed(raw[start : start + 100])]
    assert [event.line_number for event in events if event.value == "kv_cache_gib"] == [6, 6 + len(LOG)]
    assert [one.evidence["kv_cache_gib"].line_number for one in parser.close()] == [6, 6 + len(LOG)]


def test_the_figures_of_ranks_are_told_as_they_come() -> None:
    """A consumer sees each rank's, the result reduces them."""
    parser = LogParser()
    events = parser.feed(
        text(*(record(f"Available KV cache memory: {5 - n}.00 GiB", process=f"Worker_TP{n}", pid=n) for n in range(3)))
    )
    assert [event.figure for event in events if event.value == "kv_cache_gib"] == [5.0, 4.0, 3.0]
    assert parser.close()[0].facts == {"kv_cache_gib": 3.0}
