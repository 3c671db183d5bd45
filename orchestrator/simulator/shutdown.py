"""What the server prints when it is told to stop, and how uvicorn reports its own life."""

from packaging.version import Version

from orchestrator.simulator.log import Log, Process
from orchestrator.vllm.version import at_least

_STEPS = (
    ("entrypoints/launchers/launcher.py:254", "API server: shutdown triggered"),
    ("entrypoints/launchers/launcher.py:270", "API server: stopping engine client mode=abort timeout=0s"),
    ("v1/engine/core_client.py:770", "MPClient: start timeout=0s"),
    ("v1/engine/core_client.py:772", "MPClient: stopping engine manager"),
    ("v1/engine/utils.py:628", "Process manager: send sigterm to process EngineCore"),
    ("v1/engine/core_client.py:774", "MPClient: engine manager stopped"),
    ("v1/engine/core_client.py:777", "MPClient: complete"),
    ("entrypoints/launchers/launcher.py:279", "API server: engine client stopped"),
    ("entrypoints/launchers/launcher.py:304", "API server: shutting down FastAPI HTTP server"),
)


def print_shutdown(log: Log, version: Version, front: Process) -> None:
    """Print the shutdown of the release."""
    if at_least(version, "0.23.0"):
        for where, step in _STEPS:
            log.record(front, "INFO", where, f"[shutdown] {step}")
    else:
        log.record(front, "INFO", "entrypoints/launcher.py:101", "Shutting down FastAPI HTTP server.")
    log.raw(front, "INFO:     Shutting down")
    log.raw(front, "INFO:     Waiting for application shutdown.")
    log.raw(front, "INFO:     Application shutdown complete.")
