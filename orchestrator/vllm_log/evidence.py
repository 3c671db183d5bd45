"""A line kept as the proof of a figure or a failure, of bounded length."""

from orchestrator.vllm_log.framing import Line
from orchestrator.vllm_log.result import Evidence

KEPT_CHARACTERS = 8000  # more than is shown, so that a secret is whole when it is taken out


def proof_of(line: Line) -> Evidence:
    """Keep a line as evidence, the whole of it where it is not very long."""
    return Evidence(line.number, line.text[:KEPT_CHARACTERS])
