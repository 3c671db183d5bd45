"""A whole start-up in vLLM's order: front end, engines, and the lines around the HTTP server."""

from orchestrator.memory.kv_cache import KvCachePlan
from orchestrator.simulator.kv_cache import WARM_UP_SECONDS, size_kv_cache, warm_up
from orchestrator.simulator.log import Level
from orchestrator.simulator.processes import EngineProcesses, engine_processes
from orchestrator.simulator.profiling import PROFILE_SECONDS, profile
from orchestrator.simulator.run import Run
from orchestrator.simulator.worker import Workers

ROUTES = (
    ("/openapi.json", "GET, HEAD"),
    ("/docs", "GET, HEAD"),
    ("/health", "GET"),
    ("/load", "GET"),
    ("/ping", "GET"),
    ("/tokenize", "POST"),
    ("/detokenize", "POST"),
    ("/v1/models", "GET"),
    ("/version", "GET"),
    ("/v1/chat/completions", "POST"),
    ("/v1/completions", "POST"),
    ("/metrics", "GET"),
)


def show_engine_arguments(run: Run) -> None:
    """Print what the front end settles before it starts an engine: architecture, lengths, batch sizes."""
    log, front, settings = run.log, run.front, run.settings
    if run.since("0.10.1"):
        log.record(front, "INFO", "config/model.py:549", f"Resolved architecture: {run.model.architecture}")
        log.record(front, "INFO", "config/model.py:1678", f"Using max model len {settings.max_model_len}")
    context = "for OPENAI_API_SERVER usage context."
    verb = "Defaulting" if run.since("0.11.1") else "Setting"
    if "max-num-batched-tokens" not in run.arguments.given:
        text = f"{verb} max_num_batched_tokens to {settings.max_num_batched_tokens} {context}"
        log.record(front, "DEBUG", "engine/arg_utils.py:2232", text)
    if "max-num-seqs" not in run.arguments.given and run.since("0.11.1"):
        text = f"{verb} max_num_seqs to {settings.max_num_seqs} {context}"
        log.record(front, "DEBUG", "engine/arg_utils.py:2242", text)
    text = f"Chunked prefill is enabled with max_num_batched_tokens={settings.max_num_batched_tokens}."
    log.record(front, "INFO", "config/scheduler.py:238", text)
    if settings.enforce_eager and run.since("0.17.0"):
        graphs = (
            "torch.compile, CUDAGraphs, and JIT kernel warmup"
            if run.since("0.31.0")
            else ("torch.compile and CUDAGraphs")
        )
        more = " and --kernel_config.enable_jit_warmup=False" if run.since("0.31.0") else ""
        text = (
            f"Enforce eager set, disabling {graphs}. This is equivalent to setting -cc.mode=none "
            f"-cc.cudagraph_mode=none{more}"
        )
        log.record(front, "WARNING", "config/vllm.py:1703", text)
    if settings.enforce_eager and run.since("0.10.1"):
        log.record(front, "INFO", "config/vllm.py:1690", "Cudagraph is disabled under eager mode")
    if run.since("0.16.0"):
        log.record(front, "INFO", "config/vllm.py:790", "Asynchronous scheduling is enabled.")


def _engine_config(run: Run) -> str:
    given, settings = run.arguments.given, run.settings
    dtype = {4: "float32", 2: "bfloat16"}.get(settings.dtype_bytes, "bfloat16")
    chunked = "enable_chunked_prefill" if run.since("0.11.1") else "chunked_prefill_enabled"
    fields = {
        "model": repr(run.arguments.model),
        "speculative_config": "None",
        "tokenizer": repr(given.get("tokenizer", run.arguments.model)),
        "skip_tokenizer_init": "False",
        "tokenizer_mode": given.get("tokenizer-mode", "auto"),
        "revision": given.get("revision"),
        "tokenizer_revision": "None",
        "trust_remote_code": given.get("trust-remote-code", False),
        "dtype": f"torch.{dtype}",
        "max_seq_len": settings.max_model_len,
        "download_dir": repr(given["download-dir"]) if "download-dir" in given else "None",
        "load_format": given.get("load-format", "auto"),
        "tensor_parallel_size": settings.tensor_parallel_size,
        "pipeline_parallel_size": settings.pipeline_parallel_size,
    }
    if run.since("0.11.1"):
        fields["data_parallel_size"] = settings.data_parallel_size
    fields |= {
        "disable_custom_all_reduce": given.get("disable-custom-all-reduce", False),
        "quantization": settings.quantization,
        "enforce_eager": settings.enforce_eager,
        "kv_cache_dtype": given.get("kv-cache-dtype", "auto"),
        "device_config": "cuda",
        "seed": given.get("seed", 0),
        "served_model_name": run.arguments.served_names[0],
        "enable_prefix_caching": settings.enable_prefix_caching,
        chunked: True,
        "use_async_output_proc": True,
    }
    return ", ".join(f"{name}={value}" for name, value in fields.items())


async def start_engine(run: Run, index: int) -> tuple[KvCachePlan, EngineProcesses]:
    """Start one engine; raises EngineError when the computed memory does not suffice, or by a fault."""
    engine = engine_processes(run.version, run.settings, index)
    log, core = run.log, engine.core
    waiting: Level = "DEBUG" if run.since("0.11.1") else "INFO"
    log.record(core, waiting, "v1/engine/core.py:1018", "Waiting for init message from front-end.")
    if index == 0:
        text = f"Initializing a V1 LLM engine (v{run.environment.version_text}) with config: {_engine_config(run)}"
        log.record(core, "INFO", "v1/engine/core.py:105", text)
    if run.settings.world_size > 1:
        text = (
            "Reducing Torch parallelism from 112 threads to 1 to avoid unnecessary CPU contention. Set OMP_NUM_THREADS "
            "in the external environment to tune this value as needed."
        )
        log.record(core, "WARNING", "v1/executor/multiproc_executor.py:1014", text)
    workers = Workers(run, engine)
    await workers.start()
    await workers.load()
    budgets = await profile(workers)
    plan = size_kv_cache(workers, budgets)
    await warm_up(workers, budgets, plan)
    seconds = workers.compile_seconds + PROFILE_SECONDS + workers.capture_seconds + WARM_UP_SECONDS
    took = f"{seconds:.2f} seconds"
    if run.since("0.20.0"):
        took = f"{seconds:.2f} s"
        if workers.compile_seconds:
            took += f" (compilation: {workers.compile_seconds:.2f} s)"
    text = f"init engine (profile, create kv cache, warmup model) took {took}"
    log.record(core, "INFO", "v1/engine/core.py:283", text)
    log.record(core, "DEBUG", "v1/engine/core.py:1158", "EngineCore waiting for work.")
    return plan, engine


def show_blocks(run: Run, plan: KvCachePlan, index: int) -> None:
    """Print the block count as the front end learns it (0.9.0 and later)."""
    text = f"vllm cache_config_info with initialization after num_gpu_blocks is: {plan.num_blocks}"
    if run.since("0.9.1"):
        text = f"Engine {index:03d}: {text}"
    if run.since("0.9.0"):
        level: Level = "DEBUG" if run.since("0.11.1") else "INFO"
        run.log.record(run.front, level, "v1/metrics/loggers.py:273", text)
    else:
        run.log.record(run.front, "INFO", "v1/engine/core_client.py:439", f"Core engine process {index} ready.")


def show_server(run: Run, host: str, port: int) -> None:
    """Print the lines of the HTTP server up to the moment at which it starts to listen."""
    log, front = run.log, run.front
    if run.since("0.10.1"):
        log.record(front, "INFO", "entrypoints/openai/api_server.py:590", "Supported tasks: ['generate']")
    text = f"Starting vLLM API server on http://{host}:{port}"
    if run.since("0.18.0"):
        text = f"Starting vLLM server on http://{host}:{port}"
    elif run.since("0.9.1"):
        text = f"Starting vLLM API server 0 on http://{host}:{port}"
    log.record(front, "INFO", "entrypoints/openai/api_server.py:594", text)
    log.record(front, "INFO", "entrypoints/launcher.py:37", "Available routes are:")
    for path, methods in ROUTES:
        log.record(front, "INFO", "entrypoints/launcher.py:46", f"Route: {path}, Methods: {methods}")
    log.raw(front, f"INFO:     Started server process [{front.pid}]")
    log.raw(front, "INFO:     Waiting for application startup.")
