"""Every line of the tables is found and read, whatever stands around it."""

import re

import pytest

from orchestrator.vllm_log import parse_log
from orchestrator.vllm_log.causes import CAUSES, Cause
from orchestrator.vllm_log.result import FACTS
from orchestrator.vllm_log.wordings import WORDINGS, Wording

_PLACE = re.compile(r"\{([^{}]*)\}")
# A pattern around the template asks for words that the template does not hold.
_AROUND = {
    "free_memory={device_free_gib}GiB, total_memory={device_total_gib}GiB": "worker init memory snapshot: {}",
    "non_torch_memory={non_torch_gib}GiB": "{} kv_cache_size",
    "reserved {kv_cache_gib} GiB": "{} for KV Cache as specified by it",
}


def _rendered(text: str) -> tuple[str, dict[str, float]]:
    """Return the template's line with numbers put in, and the numbers by name."""
    numbers: dict[str, float] = {}

    def fill(place: re.Match[str]) -> str:
        name, _, unit = place[1].partition(":")
        if name == "*":
            return " and more "
        if name == "w":
            return "word"
        value = len(numbers) + 2
        if name:
            numbers[name] = float(value)
        return f"{value} GiB" if unit else str(value)

    line = _PLACE.sub(fill, text)
    return _AROUND.get(text, "{}").format(line), numbers


@pytest.mark.parametrize("wording", WORDINGS, ids=lambda wording: wording.template.text[:60])
@pytest.mark.parametrize("head", ["", "(Worker_TP0 pid=7) INFO 01-01 00:00:00 [worker.py:1] ", "vllm-1  | "])
def test_every_wording_is_found_and_read(wording: Wording, head: str) -> None:
    """A new wording that no anchor leads to would be a dead line of the table."""
    line, numbers = _rendered(wording.template.text)
    if wording.template.pattern.pattern.startswith(r"^\s*"):
        head = ""  # read only where nothing stands before it
    if wording.anchor is not None and wording.anchor not in line:
        line += f" {wording.anchor}"
    (found,) = parse_log((head + line + "\n").encode())
    expected = {name: value * wording.scale for name, value in numbers.items()}
    assert {name: found.facts.get(name) for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: f"{cause.kind}: {cause.template.text[:50]}")
def test_every_cause_is_found_beside_an_exception(cause: Cause) -> None:
    """Of the same kind, or the more general one when that comes first."""
    line, _ = _rendered(cause.template.text)
    pattern = cause.template.pattern
    line += " because"
    texts = [f"RuntimeError: {line}", line, f"Weight input_size_per_partition=1 {line}", f"CUDA {line} huggingface"]
    texts += [
        line.removesuffix(" because"),
        f"{line} huggingface",
        f"{line}: unhandled",
        f"{line} failed",
        f"{line} less than 1 [type=x",
        f"{line} appears to be a URI",
        f"{line} quantization",
        f"RuntimeError: {line} huggingface",
        f"RuntimeError: only these {line}",
    ]
    text = next(text for text in texts if pattern.search(text))
    if "rror" not in text:
        text = f"{text} Error"
    (found,) = parse_log(f"{text}\n".encode())
    assert found.failure is not None
    kinds = {other.kind for other in CAUSES if other.order <= cause.order and other.template.pattern.search(text)}
    assert found.failure.kind.partition(".")[0] in {kind.partition(".")[0] for kind in kinds}


def test_every_fact_has_its_place_in_the_output() -> None:
    """A fact that the result does not know would be read and never shown."""
    names = {name.partition(":")[0] for wording in WORDINGS for name in wording.template.names}
    assert names - {""} <= FACTS.keys()
