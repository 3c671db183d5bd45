"""Failing starts whose words are not vLLM's: the allocator of PyTorch, the driver, the kernel's killer."""

from collections.abc import Callable

from tests.golden import traceback_text as tb
from tests.golden.catalogue import at_least, record, render
from tests.golden.failures import FailingStart, out_of_memory
from tests.golden.session import Session

Case = Callable[[], Session]
_OOM_AT = {
    "load": ("0.4.2", "0.6.6.post1", "0.9.0", "0.33.0"),
    "profile": ("0.5.4", "0.7.3", "0.8.4", "0.24.0", "0.32.0"),
    "capture": ("0.6.3.post1", "0.8.5", "0.20.0", "0.31.0"),
}
_OOM_FRAMES = {
    "load": tb.Frame("vllm/model_executor/models/llama.py", "__init__", "self.mlp = LlamaMLP("),
    "profile": tb.Frame("vllm/model_executor/models/llama.py", "forward", "x, _ = self.gate_up_proj(x)"),
    "capture": tb.Frame("vllm/compilation/cuda_graph.py", "__call__", "output = self.runnable(*args, **kwargs)"),
}
_OOM_KINDS = {"load": ["oom.load"], "profile": ["oom.profile"], "capture": ["oom.graph_capture"]}
# Error of the CUDA runtime, the stage it strikes at, and the kinds that are right for it.
_CUDA_ERRORS = (
    ("out of memory", "load", ["oom.load", "oom"]),
    ("no kernel image is available for execution on the device", "load", ["config.unsupported", "gpu.hardware"]),
    ("an illegal memory access was encountered", "profile", ["gpu.hardware", "engine.died", "unknown"]),
    ("device-side assert triggered", "profile", ["gpu.hardware", "engine.died", "unknown"]),
    ("invalid device ordinal", "init", ["gpu.insufficient"]),
)
_DRIVER_KINDS = ["gpu.hardware", "gpu.insufficient", "config.unsupported"]
_DRIVER = (
    "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver from "
    "http://www.nvidia.com/Download/index.aspx",
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx",
    "CUDA driver version is insufficient for CUDA runtime version",
)


def third_party_failures() -> dict[str, Case]:
    """Return the cases by name."""
    found: dict[str, Case] = {}
    for stage, versions in _OOM_AT.items():
        for index, version in enumerate(versions):
            name = f"fail.torch_oom.{stage}@{version}"
            found[name] = _memory(name, version, stage, "CUDA", 1 + index % 2)
    name = "fail.torch_oom.hip@0.14.0"
    found[name] = _memory(name, "0.14.0", "profile", "HIP", 1)
    for error, stage, kinds in _CUDA_ERRORS:
        for version in ("0.6.6.post1", "0.32.0"):
            name = f"fail.cuda_generic.{error.replace(' ', '_')[:20]}@{version}"
            found[name] = _cuda(name, version, stage, error, kinds)
    for index, text in enumerate(_DRIVER):
        for version in ("0.7.3", "0.30.0")[index % 2 :]:
            name = f"fail.driver.{index + 1}@{version}"
            found[name] = _bound(name, version, "executor", f"RuntimeError: {text}", _DRIVER_KINDS)
    for version in ("0.19.0", "0.26.0", "0.33.0"):
        name = f"fail.host_oom@{version}"
        found[name] = _killed(name, version)
    return found


def _memory(name: str, version: str, stage: str, device: str, world: int) -> Case:
    def write() -> Session:
        run = FailingStart(name, version, stage, old=not at_least(version, "0.8.0"), world=world)
        run.advance()
        run.log.failure_kinds = _OOM_KINDS[stage]
        run.log.failure_contains = "out of memory"
        text = out_of_memory(version, private=stage == "capture", device=device)
        short = "OutOfMemoryError" if at_least(version, "0.6.4") else "cuda.OutOfMemoryError"
        run.fail(f"torch.{short}: {text}", _OOM_FRAMES[stage])
        return run.log

    return write


def _cuda(name: str, version: str, stage: str, error: str, kinds: list[str]) -> Case:
    exception = "torch.AcceleratorError" if at_least(version, "0.10.2") else "RuntimeError"
    advice = (
        "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
        "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to "
        "enable device-side assertions.\n"
    )
    text = f"{exception}: {render(record('fail.cuda_generic'), {'error': error}).text.partition(': ')[2]}\n{advice}"
    return _bound(name, version, stage, text, kinds, contains=error)


def _bound(name: str, version: str, stage: str, text: str, kinds: list[str], *, contains: str = "") -> Case:
    def write() -> Session:
        run = FailingStart(name, version, stage, old=not at_least(version, "0.8.0"))
        run.advance()
        run.log.failure_kinds = kinds
        run.log.failure_contains = contains or text.partition(": ")[2][:50]
        run.fail(text, tb.Frame("torch/cuda/__init__.py", "_lazy_init", "torch._C._cuda_init()"))
        return run.log

    return write


def _killed(name: str, version: str) -> Case:
    def write() -> Session:
        run = FailingStart(name, version, "load", old=False, world=2)
        run.advance()
        log, core = run.log, run.start.workers[0].named("EngineCore")
        number = 5 if at_least(version, "0.26.0") else 1
        log.say_record(f"fail.worker_died.{number}", core, {"proc_name": "VllmWorker-1", "proc_exitcode": "-9"})
        log.failure_kinds = ["host.oom", "engine.died"] if number == 5 else ["engine.died", "host.oom"]
        log.failure_contains = "died unexpectedly"
        run.client()
        return log

    return write
