"""Lines that prove a failure, by root cause; consequences are known too, so that none is taken for a cause."""

import re
from dataclasses import dataclass

N = r"(-?[\d,]{0,24}\.?\d{1,24})"


@dataclass(frozen=True, slots=True)
class FailureWording:
    """One failing line: its kind, the names of the numbers in it, and whether it is a cause or a consequence.

    `weak` causes are taken only when no strong one is in the log.
    """

    kind: str
    pattern: re.Pattern[str]
    numbers: tuple[str, ...] = ()
    weak: bool = False


def _cause(kind: str, pattern: str, *numbers: str, weak: bool = False) -> FailureWording:
    return FailureWording(kind, re.compile(pattern), numbers, weak)


_DEVICE = r"(?:CUDA|HIP|XPU|NPU|HPU)"

# In order: where two match one line, the first decides.
CAUSES: tuple[FailureWording, ...] = (
    # ValueError: To serve at least one request with the models's max seq len (32000), (7.81 GiB KV cache is needed,
    # which is larger than the available KV cache memory (4.45 GiB). Based on ... model length is 18176. (0.7+)
    _cause(
        "kv.context_too_long",
        rf"To serve at least one request with the models?'s max seq len \({N}\), \({N} G(?:i)?B KV cache is needed, "
        rf"which is larger than the available KV cache memory \({N} G(?:i)?B\)",
        "max_model_len",
        "needed_gib",
        "available_gib",
    ),
    # ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can be stored in KV
    # cache (20880). (V0)
    _cause(
        "kv.context_too_long",
        rf"The model's max seq len \({N}\) is larger than the maximum number of tokens that can be stored in KV cache "
        rf"\({N}\)",
        "max_model_len",
        "estimated_max_model_len",
    ),
    _cause("kv.no_room", r"(?:Error: |^)No available memory for the cache blocks"),
    _cause("kv.no_room", r"Cannot auto-fit max_model_len: not enough GPU memory"),
    _cause("kv.no_room", r"leaving none for the KV cache"),
    # Available memory on node 0 (20.73/22.59 GiB) on kv cache allocation is less than requested memory for kv
    # (-0.42/0.23 GiB). (CPU, 0.20+)
    _cause("kv.no_room", r"is less than requested memory for kv \(-"),
    _cause("gpu.busy", r"is less than requested memory for kv \("),
    _cause("kv.no_room", r"max_num_seqs \(\d+\) exceeds available Mamba cache blocks"),
    # ValueError: Free memory on device cuda:1 (60.87/79.19 GiB) on startup is less than desired GPU memory
    # utilization (0.95, 75.23 GiB). (0.9.1+)
    _cause(
        "gpu.busy",
        rf"(?:Free memory on device(?: \S+)?|Available memory on node \d+) \({N}/{N} GiB\) on (?:startup|kv cache "
        rf"allocation) is less than [^(]*\({N}, {N} GiB\)",
        "free_gib",
        "total_gib",
        "utilization_ratio",
        "requested_gib",
    ),
    _cause("gpu.busy", r"Error in memory profiling\. "),
    _cause("oom.warmup", r"out of memory occurred when warming up (?:sampler|pooler)"),
    # torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 112.00 MiB. GPU 0 has a total capacity of ...
    _cause("oom", rf"{_DEVICE} out of memory\. Tried to allocate {N} (?:bytes|[KMG]iB)", "tried"),
    _cause("oom", r"OutOfMemoryError: (?!.*warming up)"),
    _cause("oom", r"(?:RuntimeError|Error): (?:CUDA error: )?out of memory"),
    _cause("oom.load", r"Failed to load model - not enough GPU memory"),
    _cause(
        "gpu.hardware",
        r"NVRM: Xid|uncorrectable ECC error|GPU has fallen off the bus|GPU is lost|ECC error encountered",
    ),
    # ValueError: World size (4) is larger than the number of available GPUs (1) in this node. (0.13+)
    _cause(
        "gpu.insufficient",
        rf"(?:World size|Tensor parallel size) \({N}\) (?:is larger than|cannot be larger than) the number of "
        rf"available GPUs \({N}\)",
        "world_size",
        "available_gpus",
    ),
    _cause(
        "gpu.insufficient",
        r"please ensure that world_size \(\d+\) is less than|DP adjusted local rank \d* ?is out of bounds|"
        r"invalid device ordinal|The number of required \w+ exceeds the total number of available|"
        r"must be less than or equal to the number of visible devices|Not enough resources to allocate|"
        r"exceeds assigned_physical_gpu_ids count|is out of bounds for assigned_physical_gpu_ids",
    ),
    _cause("config.argument", r"error: unrecognized arguments: (?!.*\{)"),
    _cause("config.argument", r"(?:vllm|api_server\.py)(?: serve)?: error: (?!unrecognized)"),
    # ValueError: User-specified max_model_len (200000) is greater than the derived max_model_len
    # (max_position_embeddings=131072 or model_max_length=None in model's config.json).
    _cause(
        "config.context_exceeds_model",
        r"User-specified max_model_len \((\d{1,12})\) is greater than the derived max_model_len "
        r"\(\w+=(\d{1,12}(?:\.\d{1,6})?)",
        "max_model_len",
        "derived_max_model_len",
    ),
    _cause(
        "config.context_exceeds_model", r"User-specified max_model_len \((\d{1,12})\) is greater than", "max_model_len"
    ),
    # ValueError: Total number of attention heads (40) must be divisible by tensor parallel size (5).
    _cause(
        "config.parallelism",
        rf"Total number of attention heads \({N}\) must be divisible by tensor parallel size \({N}\)",
        "attention_heads",
        "tensor_parallel_size",
    ),
    _cause(
        "config.parallelism",
        r"AssertionError: \d+ is not divisible by \d+|Weight input_size_per_partition=\d+.*is not divisible",
    ),
    _cause(
        "config.unsupported",
        r"Model architectures .* are not supported|does not recognize this architecture|"
        r"has no vLLM implementation|Unknown quantization method|Invalid quantization method|"
        r"is not supported for (?:the current GPU|quantization method)|does not match the quantization method|"
        r"is only supported on GPUs with compute capability|No valid attention backend found|"
        r"Selected backend \S+ is not valid|Failed to infer device type|no kernel image is available|"
        r"No platform detected, vLLM is running on UnspecifiedPlatform.*(?:failed|Error)",
    ),
    _cause(
        "model.access",
        r"Access to model .* is restricted|Cannot access gated repo|You are trying to access a gated repo|"
        r"GatedRepoError|(?:401|403) Client Error",
    ),
    _cause(
        "model.missing",
        r"Repository Not Found for url|RepositoryNotFoundError|"
        r"is not a local folder and is not a valid model identifier|"
        r"Invalid repository ID or local directory specified|(?:404 Client Error)|does not appear to have a file named|"
        r"Cannot find any model weights with",
    ),
    _cause(
        "model.unreachable",
        r"couldn't connect to '?https?://|We couldn't connect to|LocalEntryNotFoundError|MaxRetryError|"
        r"outgoing traffic has been disabled|Failed to resolve '|Name or service not known.*huggingface",
    ),
    _cause(
        "comm.failure",
        r"NCCL [Ee]rror(?: in| \d+)?:? (?!\{)|DistBackendError|"
        r"ncclSystemError|ncclUnhandledCudaError|ncclInternalError|"
        r"HCCL error|HCCL function error|RCCL error|Gloo connectFullMesh failed|"
        r"Watchdog caught collective operation timeout|DistNetworkError|DistStoreError",
    ),
    _cause("host.oom", r"Insufficient space in /dev/shm|Cannot allocate memory|MemoryError$|OOMKilled|oom-kill"),
    _cause("pod.image", r"ErrImagePull|ImagePullBackOff|Failed to pull image"),
    _cause("host.oom", r"died unexpectedly \(exit code: -9\)", weak=True),
    _cause("engine.died", r"OSError: \[Errno 98\] Address already in use", weak=True),
    _cause("interrupted", r"KeyboardInterrupt|Received signal (?:2|15)|SIGTERM|terminated by signal", weak=True),
)

ESTIMATED_LENGTH = re.compile(r"the estimated maximum model length is (\d{1,12})")
OTHER_PROCESS = re.compile(r"Process \d{1,10} has (\d{1,9}(?:\.\d{1,9})?) (KiB|MiB|GiB) memory in use")
THIS_PROCESS = re.compile(r"this process has (\d{1,9}(?:\.\d{1,9})?) (KiB|MiB|GiB) memory in use")
DEVICE_CAPACITY = re.compile(
    r"has a total capac\w+ of (\d{1,9}(?:\.\d{1,9})?) (MiB|GiB) of which "
    r"(\d{1,15}(?:\.\d{1,9})?) (bytes|KiB|MiB|GiB) is free"
)

# Consequences: the process ended, but these lines never say why.
DEATH = re.compile(
    r"Engine core initialization failed|Engine process failed to start|WorkerProc initialization failed|"
    r"EngineCore failed to start|WorkerProc failed to start|died unexpectedly|EngineDeadError|"
    r"EngineCore encountered (?:a fatal error|an issue)|Application startup failed|"
    r"initialization failed\. See root cause|"
    r"MQEngineDeadError|AsyncEngineDeadError|WorkerProc hit an exception|Error executing metho"
)
# A traceback quotes source code; a template is not a rendered message.
QUOTED_SOURCE = re.compile(r"^\s*(?:raise |f?\"|f?'|logger\.|msg = |\^)|\{[a-z_.]+!?r?\}|%[sd]\b")
FRAME = re.compile(r"File \"[^\"]+\", line \d+, in (\w+)")

# Function names in a traceback that tell the stage of an out-of-memory error, most telling first.
STAGE_FRAMES: tuple[tuple[str, frozenset[str]], ...] = (
    ("warmup", frozenset({"_dummy_sampler_run", "_dummy_pooler_run", "kernel_warmup"})),
    ("graph_capture", frozenset({"capture_model", "capture", "_capture_cudagraphs", "capture_graph"})),
    (
        "profile",
        frozenset({"determine_available_memory", "determine_num_available_blocks", "profile_run", "_dummy_run"}),
    ),
    (
        "load",
        frozenset(
            {"load_model", "load_weights", "initialize_model", "_initialize_model", "process_weights_after_loading"}
        ),
    ),
    ("kv_cache", frozenset({"initialize_kv_cache", "initialize_cache", "initialize_from_config"})),
    ("runtime", frozenset({"execute_model", "step", "run_busy_loop"})),
)
