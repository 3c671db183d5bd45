"""The shared parser: text of a vLLM start-up log in, facts and a diagnosis with their evidence out.

Standard library only, no input or output of its own: `LogParser.feed(bytes)` as they arrive, then `close()`.
"""

from orchestrator.vllm_log.parser import Event, LogParser, parse_log
from orchestrator.vllm_log.redact import redact, redact_bytes
from orchestrator.vllm_log.result import Check, Evidence, Failure, StartUp

__all__ = ["Check", "Event", "Evidence", "Failure", "LogParser", "StartUp", "parse_log", "redact", "redact_bytes"]
