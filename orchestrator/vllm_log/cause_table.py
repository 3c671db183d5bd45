"""Lines that prove a failure, by root cause, as templates (see `template`). Consequences are in `marks`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """Texts of one kind; `before` and `after` are regular expressions that must hold around each of them.

    A `weak` row is no proof while something better is there; a `hint` is weaker still: start-ups live through most.
    """

    kind: str
    texts: tuple[str, ...]
    weak: bool = False
    before: str = ""
    after: str = ""
    needle: str | None = None
    remedy: str | None = None
    hint: bool = False


# The name of an exception, behind which its message stands; warnings say much of the same, and are harmless.
RAISED = r"^(?:[\w.]{1,100}\.)?[A-Z]\w{0,60}(?:Error|Exception): .{0,300}?"
_RAY_MEMORY = "raise the memory of the node or the pod: Ray ends tasks before the host has none left"
_DOWNLOAD = "download the model's files again: one of them is damaged"

TABLE: tuple[Row, ...] = (
    # --- KV cache
    Row(
        "kv.context_too_long",
        (
            # 0.22+, 0.8.3-0.21, 0.7.0-0.8.2
            "To serve at least one request with the model's max seq len ({max_model_len}), ({needed_gib} GiB KV cache "
            "is needed, which is larger than the available KV cache memory ({available_gib} GiB)",
            "To serve at least one request with the models's max seq len ({max_model_len}), ({needed_gib} GiB KV cache "
            "is needed, which is larger than the available KV cache memory ({available_gib} GiB)",
            "To serve at least one request with the models's max seq len ({max_model_len}), ({needed_gib} GB KV cache "
            "is needed, which is larger than the available KV cache memory ({available_gib} GB)",
        ),
    ),
    # Broken by a terminal, or cut.
    Row(
        "kv.context_too_long",
        ("To serve at least one request with the {w} max seq len",),
        before=r"(?:Error: |Value error, |^\s*)",
    ),
    Row(
        "kv.context_too_long",
        (
            "The model's max seq len ({max_model_len}) is larger than the maximum number of tokens that can be stored "
            "in KV cache ({estimated_max_model_len})",
        ),
    ),
    # The message itself may stand alone on a line, or behind the exception's name; quoted source has a quote first.
    Row("kv.no_room", ("No available memory for the cache blocks",), before=r"(?:Error: |Value error, |^\s*)"),
    Row("kv.no_room", ("Cannot auto-fit max_model_len: not enough GPU memory",)),
    Row("kv.no_room", ("leaving none for the KV cache",)),
    Row("kv.no_room", ("is less than requested memory for kv (-",)),
    Row("kv.no_room", ("GiB is available for the KV cache. Reduce mm_ipc_gpu_memory_gb",)),
    Row(
        "kv.no_room",
        ("max_num_seqs ({}) exceeds available Mamba cache blocks",),
        remedy="lower --max-num-seqs to the blocks that the line names",
    ),
    # --- the device was not free
    Row(
        "gpu.busy",
        (
            "Free memory on device{*} ({free_gib}/{total_gib} GiB) on startup is less than {*} ({utilization_ratio}, "
            "{requested_gib} GiB)",
            "Available memory on node {} ({free_gib}/{total_gib} GiB) on startup is less than {*} "
            "({utilization_ratio}, {requested_gib} GiB)",
        ),
        needle="GiB) on startup is less than",
    ),
    Row("gpu.busy", ("on kv cache allocation is less than requested memory for kv (",)),
    Row("gpu.busy", ("Externally held weights on device",)),
    Row("gpu.busy", ("Error in memory profiling. ",)),
    # --- accelerator out of memory; Ray has an exception of that name for the host's
    Row(
        "host.oom",
        ("ray.exceptions.OutOfMemoryError",),
        remedy=_RAY_MEMORY,
    ),
    # Of any task of that node.
    Row(
        "host.oom",
        ("node running low on memory", "exceeds the memory usage threshold of"),
        weak=True,
        hint=True,
        remedy=_RAY_MEMORY,
    ),
    Row("oom.warmup", ("out of memory occurred when warming up",)),
    Row("oom.load", ("Failed to load model - not enough GPU memory",)),
    Row("oom.load", ("The required memory size {*} for model is higher than the total available device memory",)),
    Row("oom.profile", ("The error occurred during profile run. This might be due to insufficient GPU memory",)),
    Row("oom", ("out of memory. Tried to allocate",), before=r"(?:CUDA|HIP|XPU|NPU|HPU) "),
    # A kernel that needs too much shared memory is called so too; autotuning tries the next one.
    Row("oom", ("OutOfMemoryError: ",), after=r"(?!out of resource: )"),
    Row("oom", ("Error: CUDA error: out of memory", "Error: out of memory", "Error: HIP error: out of memory")),
    Row("oom", ("UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY", "RESOURCE_EXHAUSTED: ")),
    Row("oom.graph_capture", ("ACL graph capture failed with a known stream-resource exhaustion",)),
    # --- devices
    Row(
        "gpu.hardware",
        (
            "NVRM: Xid",
            "uncorrectable ECC error",
            "GPU has fallen off the bus",
            "GPU is lost",
            "ECC error encountered",
            "unspecified launch failure",
            "system not yet initialized",
        ),
    ),
    Row(
        "gpu.insufficient",
        (
            "World size ({world_size}) is larger than the number of available GPUs ({available_gpus})",
            "Tensor parallel size ({world_size}) cannot be larger than the number of available GPUs ({available_gpus})",
            "local_world_size ({world_size}) must be less than or equal to the number of visible devices "
            "({available_gpus})",
            "please ensure that world_size ({world_size}) is less than than max local gpu count ({available_gpus})",
        ),
    ),
    Row(
        "gpu.insufficient",
        (
            "please ensure that world_size (",
            "DP adjusted local rank {} is out of bounds",
            "DP adjusted local rank is out of bounds",
            "invalid device ordinal",
            "exceeds the total number of available",
            "must be less than or equal to the number of visible devices",
            "Not enough resources to allocate",
            "Not enough total available nodes",
            "exceeds assigned_physical_gpu_ids count",
            "is out of bounds for assigned_physical_gpu_ids",
            "Current node has no GPU available",
            "Current node has no NPU available",
            "Found no NVIDIA driver on your system",
            "No CUDA GPUs are available",
            "libcuda.so.1: cannot open shared object file",
        ),
    ),
    # --- arguments
    Row("config.argument", ("error: unrecognized arguments: ",), after=r"(?!.*\{)"),
    Row(
        "config.argument",
        ("vllm: error: ", "vllm serve: error: ", "api_server.py: error: ", "__main__.py: error: "),
        after=r"(?!unrecognized)",
    ),
    Row(
        "config.context_exceeds_model",
        (
            "User-specified max_model_len ({max_model_len}) is greater than the derived max_model_len "
            "({w}={derived_max_model_len}",
            "User-specified max_model_len ({max_model_len}) is greater than",
        ),
        needle="User-specified max_model_len (",
    ),
    Row(
        "config.parallelism",
        (
            "Total number of attention heads ({attention_heads}) must be divisible by tensor parallel size "
            "({tensor_parallel_size})",
            "Total number of attention heads ({attention_heads}) must be divisible",
        ),
    ),
    Row(
        "config.parallelism",
        (
            "AssertionError: {} is not divisible by {}",
            "Pipeline parallelism is not supported",
            "must be divisible by tensor_parallel_size",
        ),
    ),
    Row(
        "config.parallelism",
        ("is not divisible by weight quantization block_",),
        remedy="choose a smaller --tensor-parallel-size, or --enable-expert-parallel: a rank's share of a weight must "
        "hold whole quantization blocks",
    ),
    Row("config.parallelism", ("is not divisible",), before=r"Weight (?:in|out)put_size_per_partition.{0,200}?"),
    Row(
        "config.argument",
        (
            "GPU memory utilization must be less than 1",
            "max_num_batched_tokens ({}) is smaller than max_model_len",
            "max_num_batched_tokens ({}) must be greater than or equal to max_num_seqs",
            "GiB total CPU memory is allocated for the swap space",
            "No valid cudagraph sizes after rounding",
            "Chunked MM input disabled but",
            "invalid tool call parser",
        ),
    ),
    Row(
        "config.argument",
        ("is greater than max_lora_rank",),
        weak=True,
        remedy="raise --max-lora-rank to what the line names",
    ),
    Row(
        "config.argument",
        ("VLLM_PORT",),
        after=r".{0,200}appears to be a URI",
        remedy="rename the Service called vllm, or set enableServiceLinks: false: Kubernetes puts its address into "
        "VLLM_PORT",
    ),
    # Triton's autotuning tries kernels that need too much, and goes on when one of them fits.
    Row("config.unsupported", ("NoTritonConfigsError: ",), weak=True),
    Row(
        "config.unsupported",
        ("OutOfResources: out of resource: shared memory",),
        weak=True,
        hint=True,
        remedy="the device has less shared memory than the kernel asks for: use another attention backend or model",
    ),
    Row(
        "config.unsupported",
        (
            "are not supported for now",
            "failed to be inspected",
            "does not recognize this architecture",
            "has no vLLM implementation",
            "Unknown quantization method",
            "Invalid quantization method",
            "is not supported for the current GPU",
            "is not supported for quantization method",
            "does not match the quantization method",
            "is only supported on GPUs with compute capability",
            "No valid attention backend found",
            "Selected backend {w} is not valid",
            "Failed to infer device type",
            "no kernel image is available",
            "Please pass the argument `trust_remote_code=True`",
            "consider setting `trust_remote_code=True`",
            "Sleep mode is not supported on current platform",
            "Alloc sq cq fail",
            "contains custom code which must be executed",
            "The checkpoint you are trying to load has model type",
            "Cannot find the config file for",
            "compiled with an unsupported toolchain",
            "invalid device function",
            "only supports Ampere GPUs or newer",
            "not supported in this architecture",
            "is not defined for option 'gpu-name'",
            "PTXASError: ",
            "invalid value for --gpu-architecture",
            "UVA is not available",
            "was supported in vLLM until",
            "NVIDIA driver on your system is too old",
            "CUDA driver version is insufficient",
            "forward compatibility was attempted on non supported HW",
            "unsupported display driver / cuda driver combination",
            "is only supported on CUDA devices",
        ),
    ),
    Row(
        "config.unsupported",
        ("No platform detected, vLLM is running on UnspecifiedPlatform",),
        after=r".*(?:failed|Error)",
    ),
    # --- the model
    # The hub answers 401 for a name that does not exist, too.
    Row("model.missing", ("Repository Not Found for url", "RepositoryNotFoundError")),
    Row(
        "model.access",
        (
            "Access to model {w} is restricted",
            "Cannot access gated repo",
            "You are trying to access a gated repo",
            "GatedRepoError",
            "401 Client Error",
            "403 Client Error",
        ),
    ),
    Row(
        "model.missing",
        (
            "is not a local folder and is not a valid model identifier",
            "Invalid repository ID or local directory specified",
            "404 Client Error",
            "does not appear to have a file named",
            "Cannot find any model weights with",
            "Cannot find any safetensors model weights with",
            "Should have a `model_type` key in its config.json",
            "Should have a model_type key in its config.json",
            "HFValidationError",
        ),
    ),
    Row(
        "model.missing",
        (
            "Error while deserializing header",
            "MetadataIncompleteBuffer",
            "HeaderTooLarge",
            "InvalidHeaderDeserialization",
        ),
        remedy=_DOWNLOAD,
    ),
    # Only a sign: it ends in the words below when the hub cannot be reached, but the next try may reach it.
    Row(
        "model.unreachable",
        ("thrown while requesting HEAD http", "thrown while requesting GET http"),
        weak=True,
        hint=True,
    ),
    Row(
        "model.unreachable",
        ("429 Client Error", "500 Server Error", "502 Server Error", "503 Server Error", "504 Server Error"),
        weak=True,
        hint=True,
        before=RAISED,
        after=r".{0,500}?(?:huggingface|hf\.co|hf-mirror|modelscope)",
    ),
    Row(
        "model.missing",
        (
            "Can't load image processor for",
            "Can't load tokenizer for",
            "Can't load the configuration of",
            "Can't load feature extractor for",
        ),
    ),
    Row(
        "model.unreachable",
        (
            "couldn't connect to 'http",
            "couldn't connect to http",
            "We couldn't connect to",
            "LocalEntryNotFoundError",
            "MaxRetryError",
            "outgoing traffic has been disabled",
            "offline mode is enabled",
            "Failed to resolve '",
        ),
    ),
    Row("model.unreachable", ("Name or service not known",), after=r".*huggingface"),
    # --- communication
    # NCCL warns of much that it does without.
    Row(
        "comm.failure",
        ("NCCL WARN {*}Cannot allocate memory", "NCCL WARN {*}No space left on device"),
        weak=True,
        hint=True,
        needle="NCCL WARN ",
    ),
    Row("comm.failure", ("NCCL error", "NCCL Error"), after=r"(?: in| \d+)?:? (?!\{)"),
    Row(
        "comm.failure",
        (
            "DistBackendError",
            "NCCL_ERROR_",
            "ncclSystemError",
            "ncclUnhandledCudaError",
            "ncclInternalError",
            "HCCL error",
            "HCCL function error",
            "RCCL error",
            "Gloo connectFullMesh failed",
            "Watchdog caught collective operation timeout",
            "DistNetworkError",
            "DistStoreError",
            "Failed to load NCCL library",
        ),
    ),
    # --- the host, and what Kubernetes says
    Row(
        "host.oom",
        ("Insufficient space in /dev/shm", "Cannot allocate memory", "OOMKilled", "out of memory: Killed process"),
    ),
    Row("host.oom", ("MemoryError",), before=r"(?:^|[\s:])", after=r"\s*$"),
    Row("pod.image", ("ErrImagePull", "ImagePullBackOff", "Failed to pull image")),
)
