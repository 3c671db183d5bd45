"""A line kept as the proof of a figure or a failure, of bounded length."""

from orchestrator.vllm_log.framing import Line
from orchestrator.vllm_log.result import Evidence

MAX_CHARACTERS = 2000


def proof_of(line: Line) -> Evidence:
    """Keep a line as evidence; what is beyond 2000 characters is cut off, and the text says so."""
    text = line.text
    return Evidence(line.number, text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " [cut]")
