"""Start-ups that fail: the error, the process that meets it, and the order in which everybody reports it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from packaging.version import Version

from orchestrator.simulator import tracebacks
from orchestrator.simulator.log import Log, Process
from orchestrator.simulator.processes import EngineProcesses, Rank
from orchestrator.simulator.tracebacks import Frame, process_traceback, traceback
from orchestrator.simulator.wording.errors import core_failed
from orchestrator.vllm.version import at_least

CHAIN = "\n\nThe above exception was the direct cause of the following exception:\n\n"
WorkerStage = Literal["start", "call"]


class StartupError(Exception):
    """A pretended start-up that ends with exit code 1."""


class ConfigError(StartupError):
    """The front end refuses the configuration; `text` is a whole traceback's last lines."""

    def __init__(self, error: str, frames: Sequence[Frame] = tracebacks.CONFIG, before: str = "") -> None:
        super().__init__(error)
        self.error = error
        self.frames = frames
        self.before = before


@dataclass
class EngineError(StartupError):
    """The engine or its workers raise `error`; `ranks` is empty when the engine core itself raises it.

    `cause` is the traceback of an error that led to this one, empty when there was none.
    """

    engine: EngineProcesses
    error: str
    frames: Sequence[Frame]
    ranks: Sequence[Rank] = ()
    stage: WorkerStage = "start"
    early: bool = False
    cause: str = ""


def validation_error(version: Version, config: str, message: str) -> str:
    """Return a config error as the release raises it: wrapped by pydantic from 0.9.1 on."""
    if not at_least(version, "0.9.1"):
        return f"ValueError: {message}"
    return (
        f"pydantic_core._pydantic_core.ValidationError: 1 validation error for {config}\n"
        f"  Value error, {message} [type=value_error, input_value=ArgsKwargs((), {{'model': ...}}), "
        "input_type=ArgsKwargs]\n"
        "    For further information visit https://errors.pydantic.dev/2.12/v/value_error"
    )


def print_config_failure(log: Log, front: Process, failure: ConfigError) -> None:
    """Print the front end's traceback, the only report of a configuration that is refused."""
    frames = (*tracebacks.FRONT_END, *failure.frames)
    log.raw(front, failure.before + traceback(frames, failure.error))


def _print_worker_failure(log: Log, failure: EngineError) -> None:
    where = "v1/executor/multiproc_executor.py:857"
    start = tracebacks.WORKER_MAIN if failure.stage == "start" else tracebacks.BUSY_LOOP
    title = "WorkerProc failed to start." if failure.stage == "start" else "WorkerProc hit an exception."
    text = failure.cause + traceback((*start, *failure.frames), failure.error)
    for rank in failure.ranks:
        process = rank.early if failure.early else rank.process
        log.record(process, "ERROR", where, f"{title}\n{text}")


def print_engine_failure(log: Log, version: Version, front: Process, failure: EngineError) -> None:
    """Print a failure in vLLM's order: workers, engine core, its process, and the front end's consequence."""
    core = failure.engine.core
    cause = ""
    alone = len(failure.engine.ranks) == 1
    if failure.ranks and not alone:
        _print_worker_failure(log, failure)
        if failure.stage == "start":
            error = (
                "Exception: WorkerProc initialization failed due to an exception in a background process. "
                "See stack trace for root cause."
            )
            frames = (*tracebacks.ENGINE_CORE, *tracebacks.EXECUTOR, *tracebacks.WAIT_FOR_READY)
        else:
            message = failure.error.split(": ", 1)[1]
            error = f"RuntimeError: Worker failed with error '{message}', please check the stack trace above for the "
            error += "root cause"
            frames = (*tracebacks.ENGINE_CORE, *tracebacks.KV_CACHE[:1], *tracebacks.COLLECTIVE)
    else:
        error, cause = failure.error, failure.cause
        middle: Sequence[Frame] = ()
        if failure.ranks:
            middle = tracebacks.EXECUTOR if failure.stage == "start" else tracebacks.KV_CACHE[:2]
        frames = (*tracebacks.ENGINE_CORE, *middle, *failure.frames)
    trace = cause + traceback(frames, error)
    log.record(core, "ERROR", "v1/engine/core.py:1108", f"EngineCore failed to start.\n{trace}")
    if not alone:
        code = " (exit code: None)" if at_least(version, "0.26.0") else ""
        log.record(
            core,
            "ERROR",
            "v1/executor/multiproc_executor.py:273",
            f"Worker proc VllmWorker-0 died unexpectedly{code}, shutting down executor.",
        )
    name = core.name or "EngineCore_0"
    log.raw(core, process_traceback(name, frames, error))
    consequence = f"RuntimeError: {core_failed(version)}"
    log.raw(front, traceback((*tracebacks.FRONT_END, *tracebacks.CORE_CLIENT), consequence))
