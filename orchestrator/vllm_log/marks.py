"""Lines that carry no figure but say where a start-up is: its version, its beginning, its stages, its death."""

import re
from enum import StrEnum


class Mark(StrEnum):
    """What a line says about the start-up; the needles by which it is found are in `NEEDLES`."""

    VERSION = "version"
    PLATFORM = "platform"
    START = "start"
    ENGINE_START = "engine_start"
    LOADING = "loading"
    CAPTURING = "capturing"
    ENGINE_UP = "engine_up"
    READY = "ready"
    TRACEBACK = "traceback"
    FRAME = "frame"
    DEATH = "death"
    SETTING = "setting"
    GRAPH_ESTIMATE = "graph_estimate"
    RANK = "rank"
    DRAFT = "draft"
    PHASE = "phase"
    SIMULATOR = "simulator"


# Functions in a traceback that tell the stage of an out-of-memory error, most telling first.
STAGE_FRAMES: tuple[tuple[str, frozenset[str]], ...] = (
    ("warmup", frozenset({"_dummy_sampler_run", "_dummy_pooler_run", "kernel_warmup"})),
    (
        "graph_capture",
        frozenset(
            {
                "capture_model",
                "capture",
                "_capture_cudagraphs",
                "capture_graph",
                "graph_capture",
                "profile_cudagraph_memory",
                "_warm_up_model",
            }
        ),
    ),
    (
        "profile",
        frozenset({"determine_available_memory", "determine_num_available_blocks", "profile_run", "_dummy_run"}),
    ),
    (
        "load",
        frozenset(
            {
                "load_model",
                "load_weights",
                "create_weights",
                "initialize_model",
                "_initialize_model",
                "process_weights_after_loading",
            }
        ),
    ),
    ("kv_cache", frozenset({"initialize_kv_cache", "initialize_cache", "initialize_from_config"})),
    ("runtime", frozenset({"execute_model", "step", "run_busy_loop"})),
)

NEEDLES: dict[Mark, tuple[str, ...]] = {
    Mark.VERSION: (" version ", "LLM engine (v"),
    Mark.PLATFORM: ("Automatically detected platform", "Platform plugin "),
    Mark.START: (" version ",),
    Mark.ENGINE_START: ("LLM engine (v",),
    Mark.LOADING: ("Starting to load model ",),
    Mark.CAPTURING: ("Capturing cudagraphs for", "Capturing the model for CUDA graphs"),
    # Before 0.6.5 the graphs were the last step. Gaudi ends with its warm-up.
    Mark.ENGINE_UP: (
        "init engine (profile",
        "Graph capturing finished in",
        "Warmup finished in",
        "Starting vLLM API server ",
        "Starting vLLM server on",
        "Available routes are",
    ),
    # A log may begin when the server is long at work.
    Mark.READY: ("Application startup complete.", "Uvicorn running on ", "Avg prompt throughput: "),
    Mark.TRACEBACK: ("Traceback (most recent call last)",),
    Mark.FRAME: ('File "',),
    # Consequences: the process ended, but these lines never say why.
    Mark.DEATH: (
        "Engine core initialization failed",
        "Engine process failed to start",
        "WorkerProc initialization failed",
        "EngineCore failed to start",
        "EngineCoreProc failed to start",
        "WorkerProc failed to start",
        "died unexpectedly",
        "EngineDeadError",
        "EngineCore encountered a",
        "Application startup failed",
        "initialization failed. See root cause",
        "failed during engine core initialization",
        "WorkerProc hit an exception",
        "Error executing metho",
        "MQLLMEngine is already dead",
        "Error: Engine process (pid",
        "Error('Engine process (pid",
        "'vllm.model_executor.models.registry']' returned",
        "Error raised in subprocess",
        "Worker failed with error '',",
    ),
    # One of a line's settings is enough to have all of them read.
    Mark.SETTING: (
        "parallel_size",
        "max_num_batched_tokens",
        "max_num_seqs to ",
        "Using max model len ",
        "Auto-fit max_model_len",
        "non-default args: ",
        "args: Namespace",
    ),
    Mark.GRAPH_ESTIMATE: ("graph memory profiling",),
    Mark.RANK: ("is assigned as DP rank", "distributed_init_method="),
    Mark.DRAFT: ("Configuring SpecDecodeWorker",),
    Mark.PHASE: (
        "memory before",
        "memory after",
        "torch_peak before",
        "torch_peak after",
        "peak_activation_memory new",
    ),
    Mark.SIMULATOR: ("kprof simulator ",),
}

# vLLM API server version 0.11.0 (until 0.14), "█ version 0.19.0" (banner), LLM engine (v0.19.0) with config
VERSION = re.compile(
    r"(?:vLLM API server version|vLLM server version|█\s+version|LLM engine \(v?|vllm_version[=:'\" ]+)\s*v?"
    r"(\d{1,4}\.\d{1,4}(?:\.\d{1,4})*[\w.+]{0,60})"
)
PLATFORM = re.compile(r"Automatically detected platform (\w{1,40})|Platform plugin (\w{1,40}) is activated")
# The plugin of vllm-ascend brings the platform "npu"; others are named alike.
PLATFORM_OF_PLUGIN = {"ascend": "npu"}
ENGINE_UP = re.compile(
    r"init engine \(profile|Graph capturing finished in \d+ secs\.(?!.*took)|Warmup finished in \d+ secs|"
    # V0 had no line for the engine as a whole until 0.6.4; its heads have no bracket.
    r"[^\[\w]model_runner\.py:\d+\] Graph capturing finished in|"
    # The server is started behind the engine.
    r"Starting vLLM (?:API )?server (?:\d+ )?on|Available routes are"
)
ENGINE_START = re.compile(r"Initializing an? (?:V[01] )?LLM engine \(v")
START = re.compile(r"vLLM API server version |vLLM server version |█\s+version \d")
GRAPH_ESTIMATE = re.compile(r"graph memory profiling (?:is (enabled|disabled)|will be enabled)")
# "rank 1 in world size 2 is assigned as DP rank 0, PP rank 0, TP rank 1"
ASSIGNED = re.compile(
    r"is assigned as DP rank (\d{1,6}), PP rank (\d{1,6}),(?: PCP rank (\d{1,6}),)? TP rank (\d{1,6})"
)
# "world_size=2 rank=1 local_rank=1 distributed_init_method=..."
GLOBAL_RANK = re.compile(r"world_size=(\d{1,6}) rank=(\d{1,6}) local_rank=\d{1,6} distributed_init_method=")
# The simulator's head says what it is; wrappers put words before it.
SIMULATOR = re.compile(r"kprof simulator \S{1,100}: ")
# The same of data-parallel engines, whose global rank counts the ranks of all of them.
DATA_RANK = re.compile(r"Adjusting world_size=\d{1,6} rank=(\d{1,6}) distributed_init_method=\S{1,200} for DP")
FRAME = re.compile(r"File \"[^\"]{1,1000}\", line \d{1,9}, in (\w{1,200})")
# A traceback quotes source code; a template is not a rendered message.
# "torch.OutOfMemoryError: ...", "KeyError: 'x'", at the beginning of a message.
EXCEPTION = re.compile(r"^(?:[\w.]{1,100}\.)?(?:[A-Z]\w{0,60}(?:Error|Exception)|Exception)\b(?::|\(|\s*$)")
# What goes wrong in start-ups that go on: tries that are repeated, helpers that are started again.
HARMLESS = re.compile(
    r"Error retrieving safetensors|resource_tracker: process died unexpectedly|, retrying (?:in )?\d|"
    r"sys\.meta_path is None|^(?!.{0,500}NoTritonConfigsError).{0,500}?"
    r"(?:No valid triton configs|OutOfMemoryError: out of resource: )"
)
QUOTED_SOURCE = re.compile(
    r"^\s*(?:raise |f?\"|f?'(?!.{1,2000}' thrown while requesting )|logger\.|msg = |\^)|\{[a-z_.]+!?r?\}|%[sd]\b"
)
