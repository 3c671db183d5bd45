"""The life of one pretended server, from its first line to its exit code."""

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

from orchestrator import __version__
from orchestrator.errors import UsageError
from orchestrator.memory.kv_cache import KvCachePlan
from orchestrator.simulator.arguments import ServeArguments
from orchestrator.simulator.banner import show_arguments, show_platform
from orchestrator.simulator.checks import check_configuration, check_model_length, find_model
from orchestrator.simulator.environment import Environment
from orchestrator.simulator.failures import (
    ConfigError,
    EngineError,
    print_config_failure,
    print_engine_failure,
)
from orchestrator.simulator.listener import bind
from orchestrator.simulator.log import Log
from orchestrator.simulator.processes import api_server
from orchestrator.simulator.run import Run, compute
from orchestrator.simulator.runtime_failure import print_runtime_oom
from orchestrator.simulator.shutdown import print_shutdown
from orchestrator.simulator.startup import show_blocks, show_engine_arguments, show_server, start_engine

if TYPE_CHECKING:
    from orchestrator.simulator.server import Served

IMPORT_SECONDS = 5.0
ENGINE_PROCESS_SECONDS = 8.0


def marker(environment: Environment) -> str:
    """Return the first line of every log, which says that nothing in it was measured."""
    return (
        f"kprof simulator {__version__}: vLLM {environment.version_text} on {environment.device.name}, "
        "computed and not measured"
    )


async def serve(arguments: ServeArguments, environment: Environment) -> int:
    """Start, serve until a signal, and return the exit code."""
    log = Log(
        sys.stdout,
        environment.version,
        debug=environment.debug,
        color=environment.color,
        mark=None if environment.replay is not None else marker(environment),
    )
    front = api_server(environment.version)
    task = asyncio.current_task()
    assert task is not None
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, task.cancel)
    try:
        if environment.replay is not None:
            from orchestrator.simulator.replay import replay  # brings the HTTP server along

            return await replay(environment.replay, arguments, environment, log)
        return await _live(arguments, environment, log)
    except asyncio.CancelledError:
        print_shutdown(log, environment.version, front)
        return 0
    except ConfigError as failure:
        print_config_failure(log, front, failure)
        return 1
    except EngineError as failure:
        print_engine_failure(log, environment.version, front, failure)
        return 1


async def _live(arguments: ServeArguments, environment: Environment, log: Log) -> int:
    front = api_server(environment.version)
    show_platform(log, environment)
    await asyncio.sleep(IMPORT_SECONDS / environment.speed)
    show_arguments(log, front, arguments, environment)
    with bind(arguments) as listener:
        model = find_model(arguments, environment)
        try:
            settings, memory = compute(arguments, model, environment)
        except UsageError as error:
            raise ConfigError(f"ValueError: {error.message}") from error
        check_model_length(settings, model, environment.version)
        run = Run(
            environment=environment,
            arguments=arguments,
            model=model,
            settings=settings,
            memory=memory,
            log=log,
            front=front,
            auto_length=arguments.given.get("max-model-len") == "auto",
        )
        show_engine_arguments(run)
        check_configuration(settings, model, environment.version, environment.visible_gpus)
        show_platform(log, environment)
        await run.wait(ENGINE_PROCESS_SECONDS)
        plans = []
        last = None
        for index in range(settings.data_parallel_size):
            plan, last = await start_engine(run, index)
            plans.append(plan)
        for index, plan in enumerate(plans):
            show_blocks(run, plan, index)
        assert last is not None
        served = _served(run, plans)
        show_server(run, arguments.host or "0.0.0.0", listener.getsockname()[1])  # noqa: S104 (vLLM's own wording)
        from orchestrator.simulator.server import serve_http

        await serve_http(served, listener, lambda: log.raw(front, "INFO:     Application startup complete."))
        print_runtime_oom(run, last)
        return 1


def _served(run: Run, plans: list[KvCachePlan]) -> "Served":
    from orchestrator.simulator.engine import Engine
    from orchestrator.simulator.metrics import CacheFacts
    from orchestrator.simulator.server import Served

    def statistics(line: str, busy: bool) -> None:
        run.log.record(run.front, "INFO" if busy else "DEBUG", "v1/metrics/loggers.py:259", line)

    settings, layout = run.settings, run.memory.layout
    facts = CacheFacts(
        block_size=settings.block_size,
        cache_dtype=str(run.arguments.given.get("kv-cache-dtype", "auto")),
        enable_prefix_caching=settings.enable_prefix_caching,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        num_gpu_blocks=sum(plan.num_blocks for plan in plans),
        num_gpu_blocks_override=settings.num_gpu_blocks_override,
        kv_cache_memory_bytes=settings.kv_cache_memory_bytes,
        tokens=plans[0].tokens,
        max_concurrency=plans[0].max_concurrency,
        sliding_window=layout.sliding_window,
    )
    engines = [
        Engine(
            layout,
            plan.num_blocks,
            max_num_seqs=settings.max_num_seqs,
            max_num_batched_tokens=settings.max_num_batched_tokens,
            prefix_caching=settings.enable_prefix_caching,
            speed=run.environment.speed,
        )
        for plan in plans
    ]
    return Served(
        version=run.version,
        version_text=run.environment.version_text,
        root=run.arguments.model,
        names=run.arguments.served_names,
        max_model_len=settings.max_model_len,
        api_keys=run.arguments.api_keys,
        engines=engines,
        facts=facts,
        statistics=None if run.arguments.given.get("disable-log-stats") is True else statistics,
        access=lambda line: run.log.raw(run.front, line),
        failing=run.environment.fault == "runtime_oom",
    )
