"""An engine that dies while it serves."""

from orchestrator.simulator import tracebacks
from orchestrator.simulator.budget import oom, rank_budget
from orchestrator.simulator.processes import EngineProcesses
from orchestrator.simulator.run import Run
from orchestrator.simulator.shutdown import print_shutdown
from orchestrator.simulator.tracebacks import Frame, traceback
from orchestrator.simulator.wording.errors import MIB

_OUTPUT_HANDLER: tuple[Frame, ...] = (
    ("vllm/v1/engine/async_llm.py", 648, "output_handler", "outputs = await engine_core.get_output_async()"),
    ("vllm/v1/engine/core_client.py", 1009, "get_output_async", "raise self._format_exception(outputs) from None"),
)


def print_runtime_oom(run: Run, engine: EngineProcesses) -> None:
    """Print an engine core that ran out of memory in a request, and the front end's end."""
    rank = engine.ranks[0]
    budget = rank_budget(run, rank)
    text = oom(run, budget, rank.rank, held=budget.free - 30 * MIB, tried=96 * MIB)
    error = f"torch.OutOfMemoryError: {text}"
    if len(engine.ranks) > 1:
        trace = traceback((*tracebacks.BUSY_LOOP, *tracebacks.EXECUTE), error)
        where = "v1/executor/multiproc_executor.py:949"
        run.log.record(rank.process, "ERROR", where, f"WorkerProc hit an exception.\n{trace}")
        error = (
            f"RuntimeError: Worker failed with error '{text}', please check the stack trace above for the root cause"
        )
    trace = traceback((*tracebacks.ENGINE_CORE[:1], *tracebacks.EXECUTE), error)
    where = "v1/engine/core.py:1100"
    run.log.record(engine.core, "ERROR", where, f"EngineCore encountered a fatal error.\n{trace}")
    dead = (
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the "
    )
    trace = traceback(_OUTPUT_HANDLER, f"{dead}root cause.")
    where = "v1/engine/async_llm.py:701"
    run.log.record(run.front, "ERROR", where, f"AsyncLLM output_handler failed.\n{trace}")
    print_shutdown(run.log, run.version, run.front)
