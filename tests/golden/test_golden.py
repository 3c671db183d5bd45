"""The parser against logs rendered from vLLM's own format strings, release by release, with known numbers."""

import json
from functools import cache
from typing import Any

import pytest

from orchestrator.vllm_log import StartUp, parse_log
from tests.golden.catalogue import ENGINE_FACTS, FACTS, FOLDER, RANK_FACTS, records
from tests.golden.generate import SEPARATOR, build, rendered

EXPECTED: dict[str, dict[str, Any]] = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
# Figures printed to 0.01 may be read from another line that rounds differently; a difference of two adds up.
TOLERANCE = {"non_torch_gib": 0.011}
READY = [name for name, case in EXPECTED.items() if case["failure_kinds"] is None]
FAILED = [name for name, case in EXPECTED.items() if case["failure_kinds"] is not None]


@cache
def _parts(log: str) -> dict[str, bytes]:
    """Return the logs in a file by case name; a file of one log holds it under the empty name."""
    content = (FOLDER / log).read_bytes()
    if not content.startswith(SEPARATOR):
        return {"": content}
    parts = (part.split(b"\n", 1) for part in content.split(SEPARATOR)[1:])
    return {name.decode(): text for name, text in parts}


@cache
def _parsed(name: str) -> StartUp:
    parts = _parts(EXPECTED[name]["log"])
    start_ups = parse_log(parts.get(name, parts.get("", b"")))
    assert len(start_ups) == 1, f"{len(start_ups)} start-ups found in the log of one"
    return start_ups[0]


def _differences(found: dict[str, float], wanted: dict[str, float], among: frozenset[str]) -> list[str]:
    """Say which facts are missing or different."""
    said = []
    for name in sorted(wanted.keys() & among):
        value, right = found.get(name), wanted[name]
        tolerance = TOLERANCE.get(name, 0.0061 if isinstance(right, float) else 0.0)
        if value is None or abs(value - right) > tolerance:
            said.append(f"{name} is {value}, the log says {right}")
    return said


@pytest.mark.parametrize("name", EXPECTED)
def test_facts_are_what_the_lines_say(name: str) -> None:
    """Every figure that the log prints is found, as printed, and reduced over the ranks."""
    case = EXPECTED[name]
    assert _differences(_parsed(name).facts, case["facts"], FACTS) == []


@pytest.mark.parametrize("name", READY)
def test_nothing_is_found_that_is_not_printed(name: str) -> None:
    """A version that does not print a figure yields none; missing is not zero."""
    found = {fact: value for fact, value in _parsed(name).facts.items() if fact in EXPECTED[name]["absent"]}
    assert found == {}


@pytest.mark.parametrize("name", READY)
def test_ranks_have_their_own_figures(name: str) -> None:
    """Each rank keeps what it printed itself, and no rank is invented."""
    case, ranks = EXPECTED[name], _parsed(name).ranks
    optional = set(case["optional"])
    said = [
        f"{rank}: {text}"
        for rank, wanted in case["ranks"].items()
        for text in _differences(ranks.get(rank, {}), wanted, FACTS)
    ]
    for rank, figures in ranks.items():
        extra = (figures.keys() & RANK_FACTS) - case["ranks"].get(rank, {}).keys() - optional
        said += [f"{rank}: {fact} was not printed" for fact in sorted(extra)]
    assert said == []


@pytest.mark.parametrize("name", EXPECTED)
def test_version_platform_and_readiness(name: str) -> None:
    """The version is read from the line of its release; the platform where the log names it."""
    case, found = EXPECTED[name], _parsed(name)
    assert found.vllm_version == case["vllm_version"]
    assert case["platform"] is None or found.platform == case["platform"]
    assert bool(found.engine_ready) == case["engine_ready"]


@pytest.mark.parametrize("name", READY)
def test_settings_are_read(name: str) -> None:
    """Arguments, engine configuration and defaulting lines give the settings that drive memory."""
    found = {key: str(value).removeprefix("torch.") for key, value in _parsed(name).settings.items()}
    wanted = {key: str(value).removeprefix("torch.") for key, value in EXPECTED[name]["settings"].items()}
    assert {key: found.get(key) for key in wanted} == wanted


@pytest.mark.parametrize("name", READY)
def test_memory_identity_closes(name: str) -> None:
    """The figures satisfy the accounting of their version, and no other check is broken."""
    found = _parsed(name)
    assert found.failure is None
    broken = [f"{check.name} {check.rank}: {check.residual}" for check in found.checks if not check.ok]
    assert broken == []


@pytest.mark.parametrize("name", FAILED)
def test_failures_have_their_root_cause(name: str) -> None:
    """A failing start is explained by its cause, never by the consequences that follow it in the log."""
    case, failure = EXPECTED[name], _parsed(name).failure
    assert failure is not None, "no failure found"
    assert failure.kind in case["failure_kinds"]
    assert case["failure_contains"] in failure.evidence.line


def test_files_are_generated() -> None:
    """The files are what the generator makes of formats.json; nobody edits them by hand."""
    files = build()
    stored = {f"logs/{path.name}" for path in (FOLDER / "logs").iterdir()} | {"expected.json"}
    assert stored == files.keys()
    assert [name for name, content in files.items() if (FOLDER / name).read_bytes() != content] == []


def test_engine_and_rank_facts_are_apart() -> None:
    """A fact belongs to the engine or to a rank, not to both."""
    assert not ENGINE_FACTS & RANK_FACTS


def test_every_figure_line_is_rendered() -> None:
    """Each format string that shows a fact stands in at least one golden log, but for those listed with a reason."""
    left_out = {
        "prof.snapshot": "printed inside the record of prof.snapshot.2",
        "prof.cpu_kv_old": "a setting's default, warned of by the API server",
        "prof.num_gpu_blocks.3": "whether data-parallel engines are summed up is not known",
        "prof.rocm_grew.1": "how the figures of such a start add up is not known",
        "mm.encoder_cache.2": "renders as its neighbour does",
        "prof.kv_bytes_mode.2": "renders as its neighbour does",
        "prof.suggest.2": "renders as its neighbour does",
        "weights.xpu_loading.1": "renders as weights.v0_loading_gb.1 with another unit",
        "ascend.available_kv.2": "one board, halved figures",
    }
    shown = {item.id for item in records() if {name.partition("#")[0] for name in item.facts} & FACTS}
    missing = {name for name in shown - rendered() if not name.startswith(("fail.", "ascend.fail", *left_out))}
    assert missing == set()
