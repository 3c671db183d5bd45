"""The shared parser: text of a vLLM start-up log in, facts and a diagnosis with their evidence out.

Standard library only, no input or output of its own: `LogParser.feed(bytes)` as they arrive, then `close()`.
"""

from orchestrator.vllm_log.checks import against_metrics, bytes_per_token
from orchestrator.vllm_log.parser import Event, LogParser, parse_log
from orchestrator.vllm_log.redact import redact, redact_bytes
from orchestrator.vllm_log.result import Check, Evidence, Failure, StartUp
from orchestrator.vllm_log.unread import UnreadLine, unread_lines

__all__ = [
    "Check",
    "Event",
    "Evidence",
    "Failure",
    "LogParser",
    "StartUp",
    "UnreadLine",
    "against_metrics",
    "bytes_per_token",
    "parse_log",
    "redact",
    "redact_bytes",
    "unread_lines",
]
