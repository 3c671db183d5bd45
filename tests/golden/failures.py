"""Failing starts: the log up to the stage, the root cause in its traceback, and the consequences of that version."""

import re
import zlib
from collections.abc import Callable
from dataclasses import replace

from tests.golden import traceback_text as tb
from tests.golden.catalogue import Record, at_least, record, records, render
from tests.golden.causes import Cause, cause_of, is_root_cause
from tests.golden.figures import Awkward
from tests.golden.framing import Process
from tests.golden.samples import values_for
from tests.golden.session import Session
from tests.golden.setup import Setup
from tests.golden.startup import V1Start, Wish
from tests.golden.v0 import V0Start

Case = Callable[[], Session]
_CORE = "vllm/v1/engine/core.py"
_WORKERS = "vllm/v1/executor/multiproc_executor.py"
_OLD_WORKERS = "vllm/executor/multiproc_worker_utils.py"
_OLD_ENGINE = "vllm/engine/multiprocessing/engine.py"
_FORMAT_CALL = re.compile(r" \.format\(.*\)$")
# These are rendered in every framing that tracebacks had.
_EVERY_FRAMING = frozenset({"fail.tp_heads.1", "fail.nccl.1", "fail.no_weights.1", "fail.gated"})
# GiB left for the KV cache where the message depends on it or prints it.
_KV_LEFT = {"no_kv": -1.44, "nokv": -1.44, "autofit": -0.02, "kv_lt_len": 5.03, "mm_ipc": 0.7}
_METHODS = {
    "executor": "init_device",
    "init": "init_device",
    "load": "load_model",
    "profile": "determine_num_available_blocks",
    "kv": "initialize_cache",
    "capture": "initialize_cache",
    "warmup": "initialize_cache",
}
_ORDER = ("config", "executor", "init", "load", "profile", "kv", "capture", "warmup")


class FailingStart:
    """One start that fails with a given message at a given stage."""

    def __init__(self, name: str, version: str, stage: str, *, old: bool, world: int = 1) -> None:
        self.version = version
        self.stage = stage
        self.old = old
        left = next((size for word, size in _KV_LEFT.items() if word in name), 2.63)
        wish = Wish(awkward=Awkward(kv=left), brief=True)
        setup = Setup(tensor=world, length=131072)
        self.start: V0Start | V1Start
        if old:
            self.start = V0Start(name, version, replace(setup, eager=stage != "capture"), wish)
        else:
            self.start = V1Start(name, version, setup, wish)
        self.log = self.start.log
        self.multi = world > 1

    def advance(self) -> None:
        """Write the log up to the stage."""
        start, place = self.start, _ORDER.index(self.stage) if self.stage in _ORDER else -1
        if place < 0:
            return
        start.announce()
        if place >= 1:
            start.configure()
        if place >= 3 and isinstance(start, V1Start):
            start.init_devices()
        if place == 3:
            self.log.say_record("weights.start.1", start.workers[0], {"model": start.setup.model})
        if place >= 4:
            start.load()
        if place >= 5:
            start.profile()
        if place >= 6:
            start.size_cache()
        if place == 6:
            self._begin_capture()
        if place >= 7:
            start.capture()

    def _begin_capture(self) -> None:
        worker = self.start.workers[0]
        if self.old:
            number = 2 if not at_least(self.version, "0.6.4") else 3 if not at_least(self.version, "0.6.6") else 5
            self.log.say_record(f"graph.v0_start.{number}", worker)
        if at_least(self.version, "0.6.6"):
            self.log.writer.bar(worker, "Capturing CUDA graph shapes", 35, glued=True)

    def fail(self, message: str, frame: tb.Frame) -> None:
        """Write the cause and what follows from it."""
        if self.stage in ("arguments", "config"):
            self._in_server(message, frame)
        elif self.old:
            self._in_old_engine(message, frame)
        elif self.multi and self.stage != "kv":
            self._in_worker(message, frame)
        else:
            self._in_core(message, frame)

    def _in_server(self, message: str, frame: tb.Frame) -> None:
        frames = tb.SERVER if at_least(self.version, "0.8.0") else tb.OLD_SERVER
        self.log.writer.plain(self.start.api, tb.traceback([*frames, *tb.CONFIG, frame], message))

    def _in_old_engine(self, message: str, frame: tb.Frame) -> None:
        writer, start = self.log.writer, self.start
        text = tb.traceback([*tb.OLD_ENGINE, *tb.OLD_STAGES.get(self.stage, []), frame], message)
        if self.multi and at_least(self.version, "0.5.0"):
            worker = start.workers[-1]
            said = f"Exception in worker VllmWorkerProcess while processing method {_METHODS[self.stage]}."
            trace = tb.traceback([*tb.OLD_STAGES.get(self.stage, []), frame], message)
            writer.record(worker, "ERROR", _OLD_WORKERS, f"{said}\n{trace}")
        if not at_least(self.version, "0.6.2"):
            writer.plain(start.api, text.replace("\n", "\n[rank0]: ") if at_least(self.version, "0.6.0") else text)
            return
        writer.record(start.workers[0], "ERROR", _OLD_ENGINE, message.partition(": ")[2] + "\n" + text)
        writer.plain(start.workers[0], "Process SpawnProcess-1:\n" + text)
        said = record(f"fail.core_init.{2 if at_least(self.version, '0.6.4') else 1}").pattern
        writer.plain(start.api, tb.traceback([*tb.SERVER, *tb.OLD_CLIENT], f"RuntimeError: {said}"))

    def _in_core(self, message: str, frame: tb.Frame) -> None:
        writer, start = self.log.writer, self.start
        assert isinstance(start, V1Start)
        core = start.engines[0]
        middle = tb.CACHES if self.stage in ("kv", "profile", "capture", "warmup") else tb.EXECUTOR
        deep = [] if self.multi else tb.STAGES.get(self.stage, [])
        text = tb.traceback([*tb.CORE, *middle, *deep, frame], message)
        if not at_least(self.version, "0.8.5"):
            writer.record(core, "ERROR", _CORE, f"EngineCore hit an exception: {text}")
            said = "Got fatal signal from worker processes, shutting down. See stack trace above for root cause issue."
            writer.record(start.api, "CRITICAL", "vllm/v1/engine/core_client.py", said)
            if at_least(self.version, "0.8.4"):
                self._client("fail.core_init.5")
            return
        writer.record(core, "ERROR", _CORE, f"{record('fail.enginecore.5').pattern}\n{text}")
        name = core.name or "EngineCore_0"
        writer.plain(core, f"Process {name}:\n{tb.traceback([*tb.CORE[:1], frame], message)}")
        self.client()

    def client(self) -> None:
        """Write what the API server says when its engine is gone."""
        number = 7 if at_least(self.version, "0.28.0") else 6 if at_least(self.version, "0.9.0") else 5
        self._client(f"fail.core_init.{number}")

    def _client(self, identifier: str) -> None:
        said = record(identifier).pattern.partition("{")[0] + ("{}" if "{" in record(identifier).pattern else "")
        frames = [*tb.SERVER, *tb.CLIENT]
        self.log.writer.plain(self.start.api, tb.traceback(frames, f"RuntimeError: {said}"))

    def _in_worker(self, message: str, frame: tb.Frame) -> None:
        writer, start = self.log.writer, self.start
        assert isinstance(start, V1Start)
        worker = start.workers[-1]
        if self.stage in ("executor", "init"):
            worker = start.workers[-1].named(_early_name(self.version, worker))
        loading = self.stage in ("executor", "init", "load")
        frames = tb.WORKER_MAIN if loading else tb.BUSY_LOOP
        said = record(f"fail.enginecore.{6 if loading else 8}").pattern
        if not at_least(self.version, "0.8.5"):
            said = "WorkerProc hit an exception: " + message
        trace = tb.traceback([*frames, *tb.STAGES.get(self.stage, []), frame], message)
        writer.record(worker, "ERROR", _WORKERS, f"{said}\n{trace}")
        if loading:
            after = "WorkerProc initialization failed due to an exception in a background process."
            after = f"Exception: {after} See stack trace for root cause."
        else:
            inner = message.partition(": ")[2].split("\n")[0]
            after = f"RuntimeError: Worker failed with error '{inner}', please check the stack trace above for the "
            after += "root cause"
        self._in_core(after, tb.WAITING[0])


def _early_name(version: str, worker: Process) -> str | None:
    if not at_least(version, "0.10.2"):
        return worker.name
    return "Worker" if at_least(version, "0.18.0") else None


def _is_old(item: Record, version: str) -> bool:
    """Say whether the V0 engine raises this."""
    if not at_least(version, "0.8.0"):
        return True
    only_old = item.file.startswith(("vllm/worker/", "vllm/executor/", "vllm/engine/"))
    return only_old and not at_least(version, "0.11.0") and item.group in ("fail.v0_len", "fail.profiling_assert")


def failing(name: str, item: Record, version: str, *, world: int = 1) -> Session:
    """Write one failing start of a root cause."""
    cause = cause_of(item, version)
    if item.id == "fail.unrecognized":
        return _bad_flag(name, cause, version)
    if item.id == "fail.port":
        return _port(name, cause, version)
    run = FailingStart(name, version, cause.stage, old=_is_old(item, version), world=world)
    run.advance()
    text = _FORMAT_CALL.sub("", render(item, values_for(item, version)).text).rstrip()
    if item.id == "fail.resources.4":  # the arguments are not put into the text: a mistake of these releases
        text = text.partition(", dp_size_local")[0] + ", 4, '10.0.0.1', 2)"
    log = run.log
    log.failure_kinds = cause.kinds
    log.failure_contains = text.split("\n")[0][:60].rstrip()
    exception = cause.exception
    if exception is None:
        log.writer.record(run.start.workers[0], "ERROR", item.file, text)
        exception, text = "OSError", "libnccl.so.2: cannot open shared object file: No such file or directory"
        if item.id == "fail.load_oom.1":
            exception, text = "torch.OutOfMemoryError", out_of_memory(version)
            log.failure_contains = "memory"
        elif item.id.startswith("fail.nccl_lib"):
            log.failure_contains = "nccl"
    if "Error" in text.split(":")[0] and " " not in text.split(":")[0]:
        exception, _, text = text.partition(": ")
    frame = tb.raising(item.file, item.function, exception or "RuntimeError", item.pattern)
    if cause.wrapped_by and exception in ("ValueError", "AssertionError"):
        shape = "[type=value_error, input_value=ArgsKwargs((), {'model_co...: 0}), input_type=ArgsKwargs]"
        text = f"1 validation error for {cause.wrapped_by}\n  Value error, {text} {shape}"
        text += "\n    For further information visit https://errors.pydantic.dev/2.11/v/value_error"
        exception = "pydantic_core._pydantic_core.ValidationError"
    if item.id == "fail.util_range.pydantic":
        exception = "pydantic_core._pydantic_core.ValidationError"
        log.failure_contains = "less than or equal to 1"
    run.fail(f"{exception}: {text}" if exception else text, frame)
    return log


def _bad_flag(name: str, cause: Cause, version: str) -> Session:
    """Write argparse's refusal: nothing of vLLM stands before it but the platform."""
    start = V1Start(name, version, Setup())
    log = start.log
    log.say("life.platform", Process(None, 1), {"platform": "cuda"})
    log.platform = "cuda" if at_least(version, "0.7.0") and not at_least(version, "0.11.1") else None
    log.writer.plain(Process(None, 1), "usage: vllm [-h] [-v] {chat,complete,serve,bench,collect-env,run-batch} ...")
    text = render(cause.item, values_for(cause.item, version)).text
    log.writer.plain(Process(None, 1), text)
    log.failure_kinds, log.failure_contains = cause.kinds, text
    return log


def _port(name: str, cause: Cause, version: str) -> Session:
    start = V1Start(name, version, Setup())
    start.announce()
    log, text = start.log, cause.item.pattern
    frame = tb.Frame("vllm/entrypoints/openai/api_server.py", "create_server_socket", "sock.bind(addr)")
    log.writer.plain(start.api, tb.traceback([*tb.SERVER, frame], text))
    log.failure_kinds, log.failure_contains = cause.kinds, text
    return log


def out_of_memory(version: str, *, private: bool = False, device: str = "CUDA") -> str:
    """Return the message of PyTorch's allocator in the words of the release that the version uses."""
    capacity = "capacity" if at_least(version, "0.5.0") else "capacty"
    pools = "with 160.00 MiB allocated in private pools (e.g., CUDA Graphs), " if private else ""
    variable = "PYTORCH_ALLOC_CONF" if at_least(version, "0.18.0") else "PYTORCH_CUDA_ALLOC_CONF"
    return (
        f"{device} out of memory. Tried to allocate 448.00 MiB. GPU 0 has a total {capacity} of 23.58 GiB of which "
        "211.94 MiB is free. Including non-PyTorch memory, this process has 23.36 GiB memory in use. Of the allocated "
        f"memory 22.75 GiB is allocated by PyTorch, {pools}and 115.71 MiB is reserved by PyTorch but unallocated. If "
        f"reserved but unallocated memory is large try setting {variable}=expandable_segments:True to avoid "
        "fragmentation.  See documentation for Memory Management  "
        "(https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
    )


def catalogue_failures() -> dict[str, Case]:
    """Return a failing start for every version range of every root cause; wide ranges are tried at both ends."""
    found: dict[str, Case] = {}
    for item in records():
        if not is_root_cause(item):
            continue
        for first, last in item.version_ranges:
            for version in _ends(item, first, last):
                name = f"{item.id}@{version}"
                framed = version.partition("rc")[0] if item.project == "vllm-ascend" else version
                prints_left = item.group in ("fail.kv_lt_len", "fail.mm_ipc")
                world = 2 if zlib.crc32(name.encode()) % 3 == 0 and not prints_left else 1
                found[name] = _bind(name, item, framed, world)
    return found


def _bind(name: str, item: Record, version: str, world: int) -> Case:
    return lambda: failing(name, item, version, world=world)


def _ends(item: Record, first: str, last: str) -> tuple[str, ...]:
    """Return the release to render a range in: its first or its last one; bad flags in every framing."""
    if item.id == "fail.unrecognized":
        return ("0.6.0", "0.11.0", "0.33.0")
    if item.id in _EVERY_FRAMING:
        return ("0.5.0.post1", "0.7.3", "0.8.4", "0.10.0", "0.17.1", "0.30.0", "0.33.0")
    return (last if zlib.crc32(item.id.encode()) % 3 else first,)
