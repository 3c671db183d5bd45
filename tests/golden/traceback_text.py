"""Python tracebacks as they stand in a log: frames with the source lines that they quote, and the message."""

from dataclasses import dataclass

SITE = "/usr/local/lib/python3.12/dist-packages"


@dataclass(frozen=True)
class Frame:
    """One frame: file below site-packages, function and the quoted source line."""

    file: str
    function: str
    source: str

    def lines(self, number: int) -> list[str]:
        """Return the frame as printed, with carets under the call."""
        found = [f'  File "{SITE}/{self.file}", line {number}, in {self.function}', f"    {self.source}"]
        _, _, call = self.source.partition(" = ")
        if call.endswith(")") and "vllm_config" not in call:
            found.append(" " * (4 + self.source.index(call)) + "^" * len(call))
        return found


def traceback(frames: list[Frame], message: str) -> str:
    """Return the whole traceback, the message last."""
    found = ["Traceback (most recent call last):"]
    for index, frame in enumerate(frames):
        found += frame.lines(101 + 37 * index)
    return "\n".join([*found, message])


CORE = [Frame("vllm/v1/engine/core.py", "run_engine_core", "engine_core = EngineCoreProc(*args, **kwargs)")]
EXECUTOR = [Frame("vllm/v1/engine/core.py", "__init__", "self.model_executor = executor_class(vllm_config)")]
WAITING = [Frame("vllm/v1/executor/multiproc_executor.py", "wait_for_ready", "raise e from None")]
WORKER_MAIN = [Frame("vllm/v1/executor/multiproc_executor.py", "worker_main", "worker = WorkerProc(*args, **kwargs)")]
BUSY_LOOP = [Frame("vllm/v1/executor/multiproc_executor.py", "worker_busy_loop", "output = func(*args, **kwargs)")]
CACHES = [Frame("vllm/v1/engine/core.py", "__init__", "kv_cache_config = self._initialize_kv_caches(vllm_config)")]
SERVER = [Frame("vllm/entrypoints/openai/api_server.py", "run_server", "async with build_async_engine_client(")]
CONFIG = [Frame("vllm/engine/arg_utils.py", "create_engine_config", "config = VllmConfig(model_config=model_config)")]
CLIENT = [Frame("vllm/v1/engine/core_client.py", "__init__", "with launch_core_engines(")]
OLD_SERVER = [Frame("vllm/entrypoints/openai/api_server.py", "<module>", "engine = AsyncLLMEngine.from_engine_args(")]
OLD_ENGINE = [
    Frame("vllm/engine/multiprocessing/engine.py", "run_mp_engine", "engine = MQLLMEngine.from_engine_args("),
    Frame("vllm/engine/llm_engine.py", "__init__", "self._initialize_kv_caches()"),
]
STAGES = {
    "load": [Frame("vllm/v1/worker/gpu_worker.py", "load_model", "self.model_runner.load_model()")],
    "profile": [Frame("vllm/v1/worker/gpu_worker.py", "determine_available_memory", "self.model_runner.profile_run()")],
    "capture": [Frame("vllm/v1/worker/gpu_worker.py", "compile_or_warm_up_model", "self.model_runner.capture_model()")],
    "warmup": [
        Frame("vllm/v1/worker/gpu_worker.py", "compile_or_warm_up_model", "self.model_runner._dummy_sampler_run(")
    ],
}
OLD_STAGES = {
    "load": [Frame("vllm/worker/worker.py", "load_model", "self.model_runner.load_model()")],
    "profile": [Frame("vllm/worker/worker.py", "determine_num_available_blocks", "self.model_runner.profile_run()")],
    "capture": [Frame("vllm/worker/worker.py", "_warm_up_model", "self.model_runner.capture_model(self.gpu_cache)")],
}
OLD_CLIENT = [Frame("vllm/entrypoints/openai/api_server.py", "build_async_engine_client", "raise RuntimeError(")]


def raising(file: str, function: str, exception: str, template: str, *, old: bool = False) -> Frame:
    """Return the frame that raises; a short template stands on the quoted line itself, placeholders and all."""
    name = function.rpartition(".")[2] or "<module>"
    where = file if "/" in file and " " not in file else "transformers/utils/hub.py"
    first = template.split("\n")[0]
    if exception == "AssertionError":
        return Frame(where, name, f'assert not failed, "{first[:60]}"' if old else "assert (")
    if len(first) < 90 and "(" not in first:
        mark = "f" if "{" in first else ""
        return Frame(where, name, f'raise {exception}({mark}"{first}")')
    return Frame(where, name, f"raise {exception}(")
