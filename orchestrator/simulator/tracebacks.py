"""Python tracebacks as the processes of vLLM print them."""

from collections.abc import Sequence

PACKAGES = "/usr/local/lib/python3.12/dist-packages"
STANDARD = "/usr/lib/python3.12"

Frame = tuple[str, int, str, str]
"""File below the packages folder, line number, function and the line of source code."""

ENGINE_CORE: Sequence[Frame] = (
    ("vllm/v1/engine/core.py", 1082, "run_engine_core", "engine_core = EngineCoreProc(*args, **kwargs)"),
    ("vllm/v1/engine/core.py", 848, "__init__", "super().__init__("),
)
EXECUTOR: Sequence[Frame] = (
    ("vllm/v1/engine/core.py", 114, "__init__", "self.model_executor = executor_class(vllm_config)"),
    ("vllm/v1/executor/abstract.py", 103, "__init__", "self._init_executor()"),
)
WORKER_MAIN: Sequence[Frame] = (
    ("vllm/v1/executor/multiproc_executor.py", 826, "worker_main", "worker = WorkerProc(*args, **kwargs)"),
)
BUSY_LOOP: Sequence[Frame] = (
    ("vllm/v1/executor/multiproc_executor.py", 944, "worker_busy_loop", "output = func(*args, **kwargs)"),
)
INIT_DEVICE: Sequence[Frame] = (
    ("vllm/v1/worker/worker_base.py", 312, "init_device", "self.worker.init_device()  # type: ignore"),
)
REQUEST_MEMORY: Sequence[Frame] = (
    *INIT_DEVICE,
    ("vllm/v1/worker/gpu_worker.py", 283, "init_device", "self.requested_memory = request_memory(...)"),
    ("vllm/v1/worker/utils.py", 413, "request_memory", "raise ValueError("),
)
INIT_DISTRIBUTED: Sequence[Frame] = (
    *INIT_DEVICE,
    ("vllm/v1/worker/gpu_worker.py", 258, "init_device", "init_worker_distributed_environment("),
    ("vllm/distributed/parallel_state.py", 1561, "initialize_model_parallel", "_TP = init_model_parallel_group("),
    ("vllm/distributed/device_communicators/pynccl.py", 146, "__init__", "self.all_reduce(data)"),
    ("vllm/distributed/device_communicators/pynccl_wrapper.py", 412, "ncclAllReduce", "self.NCCL_CHECK("),
    (
        "vllm/distributed/device_communicators/pynccl_wrapper.py",
        378,
        "NCCL_CHECK",
        'raise RuntimeError(f"NCCL error: {error_str}")',
    ),
)
LOAD_MODEL: Sequence[Frame] = (
    ("vllm/v1/worker/gpu_worker.py", 323, "load_model", "self.model_runner.load_model()"),
    ("vllm/v1/worker/gpu_model_runner.py", 4751, "load_model", "self.model = model_loader.load_model("),
    ("vllm/model_executor/model_loader/base_loader.py", 55, "load_model", "model = initialize_model("),
    ("vllm/model_executor/layers/linear.py", 456, "create_weights", "weight = ModelWeightParameter("),
    ("torch/utils/_device.py", 103, "__torch_function__", "return func(*args, **kwargs)"),
)
PROFILE: Sequence[Frame] = (
    ("vllm/v1/worker/gpu_worker.py", 391, "determine_available_memory", "self.model_runner.profile_run()"),
    ("vllm/v1/worker/gpu_model_runner.py", 5561, "profile_run", "hidden_states, last_hidden_states = self._dummy_run("),
)
PROFILE_ASSERTION: Sequence[Frame] = (
    (
        "vllm/v1/worker/gpu_worker.py",
        401,
        "determine_available_memory",
        "assert self.init_snapshot.free_memory > free_gpu_memory, (",
    ),
)
KV_CACHE: Sequence[Frame] = (
    ("vllm/v1/engine/core.py", 124, "__init__", "kv_cache_config = self._initialize_kv_caches(vllm_config)"),
    ("vllm/v1/engine/core.py", 248, "_initialize_kv_caches", "kv_cache_configs = get_kv_cache_configs("),
    ("vllm/v1/core/kv_cache_utils.py", 1574, "get_kv_cache_configs", "_check_enough_kv_cache_memory("),
    ("vllm/v1/core/kv_cache_utils.py", 695, "_check_enough_kv_cache_memory", "raise ValueError("),
)
ALLOCATE_KV: Sequence[Frame] = (
    ("vllm/v1/worker/gpu_worker.py", 512, "initialize_from_config", "self.model_runner.initialize_kv_cache("),
    ("vllm/v1/worker/gpu_model_runner.py", 6330, "_allocate_kv_cache_tensors", "tensor = torch.zeros("),
)
CAPTURE: Sequence[Frame] = (
    ("vllm/v1/worker/gpu_worker.py", 581, "compile_or_warm_up_model", "self.model_runner.capture_model()"),
    ("vllm/v1/worker/gpu_model_runner.py", 6021, "capture_model", "self._capture_cudagraphs("),
    ("vllm/compilation/cuda_graph.py", 294, "__call__", "with torch.cuda.graph("),
)
SAMPLER: Sequence[Frame] = (
    ("vllm/v1/worker/gpu_worker.py", 640, "compile_or_warm_up_model", "self.model_runner._dummy_sampler_run("),
    ("vllm/v1/worker/gpu_model_runner.py", 5430, "_dummy_sampler_run", "raise RuntimeError("),
)
EXECUTE: Sequence[Frame] = (
    ("vllm/v1/worker/gpu_worker.py", 742, "execute_model", "output = self.model_runner.execute_model("),
    ("vllm/v1/worker/gpu_model_runner.py", 3841, "execute_model", "model_output = self._model_forward("),
)
CONFIG: Sequence[Frame] = (
    ("vllm/entrypoints/openai/api_server.py", 124, "build_async_engine_client_from_engine_args", "vllm_config = ..."),
    ("vllm/engine/arg_utils.py", 1539, "create_engine_config", "model_config = self.create_model_config()"),
)
FRONT_END: Sequence[Frame] = (
    ("vllm/entrypoints/cli/main.py", 75, "main", "args.dispatch_function(args)"),
    ("vllm/entrypoints/cli/serve.py", 122, "cmd", "uvloop.run(run_server(args))"),
    ("vllm/entrypoints/openai/api_server.py", 670, "run_server", "await run_server_worker(listen_address, sock, args)"),
    ("vllm/entrypoints/openai/api_server.py", 684, "run_server_worker", "async with build_async_engine_client("),
)
CORE_CLIENT: Sequence[Frame] = (
    ("vllm/v1/engine/async_llm.py", 154, "__init__", "self.engine_core = EngineCoreClient.make_async_mp_client("),
    ("vllm/v1/engine/core_client.py", 535, "__init__", "with launch_core_engines("),
    ("vllm/v1/engine/utils.py", 1057, "wait_for_engine_startup", "raise RuntimeError("),
)
WAIT_FOR_READY: Sequence[Frame] = (
    (
        "vllm/v1/executor/multiproc_executor.py",
        190,
        "_init_executor",
        "self.workers = WorkerProc.wait_for_ready(unready_workers)",
    ),
    ("vllm/v1/executor/multiproc_executor.py", 736, "wait_for_ready", "raise e from None"),
)
COLLECTIVE: Sequence[Frame] = (
    ("vllm/v1/executor/multiproc_executor.py", 389, "collective_rpc", "return future.result()"),
    ("vllm/v1/executor/multiproc_executor.py", 84, "result", "raise RuntimeError("),
)


def traceback(frames: Sequence[Frame], error: str) -> str:
    """Return a traceback that ends in `error`, for example `ValueError: …`."""
    lines = ["Traceback (most recent call last):"]
    for path, number, function, code in frames:
        lines.append(f'  File "{PACKAGES}/{path}", line {number}, in {function}')
        lines.append(f"    {code}")
    return "\n".join([*lines, error])


def process_traceback(process_name: str, frames: Sequence[Frame], error: str) -> str:
    """Return what Python's multiprocessing prints when a process dies of an exception."""
    start = [
        f"Process {process_name}:",
        "Traceback (most recent call last):",
        f'  File "{STANDARD}/multiprocessing/process.py", line 314, in _bootstrap',
        "    self.run()",
        f'  File "{STANDARD}/multiprocessing/process.py", line 108, in run',
        "    self._target(*self._args, **self._kwargs)",
    ]
    return "\n".join([*start, *traceback(frames, error).split("\n")[1:]])
