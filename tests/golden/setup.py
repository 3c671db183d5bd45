"""How a start-up was asked for: the arguments and configuration that a version prints, and what they settle."""

from dataclasses import dataclass, replace

from tests.golden.catalogue import Value, at_least, pick, record, render
from tests.golden.framing import Process

Setting = int | str | bool
_SETTINGS = (
    "max_model_len",
    "quantization",
    "enforce_eager",
    "pipeline_parallel_size",
    "tensor_parallel_size",
    "data_parallel_size",
    "block_size",
    "kv_cache_dtype",
    "max_num_batched_tokens",
    "max_num_seqs",
)
_OLD_ARGUMENTS = (
    "host=None, port=8000, uvicorn_log_level='info', allow_credentials=False, api_key=None, lora_modules=None, "
    "chat_template=None, response_role='assistant', ssl_keyfile=None, root_path=None, middleware=[], {model}"
    "tokenizer=None, skip_tokenizer_init=False, revision=None, tokenizer_mode='auto', trust_remote_code=False, "
    "download_dir=None, load_format='auto', {first}distributed_executor_backend=None, {second}"
    "enable_prefix_caching=False, disable_sliding_window=False, seed=0, swap_space=4, cpu_offload_gb=0, {third}"
    "max_logprobs=20, disable_log_stats=False, {fourth}max_seq_len_to_capture=8192, enable_lora=False, "
    "speculative_model=None, served_model_name=None, disable_log_requests=False)"
)


@dataclass(frozen=True)
class Setup:
    """The settings of one start-up; None: not given, the version's default counts."""

    model: str = "Qwen/Qwen2.5-14B-Instruct"
    architecture: str = "Qwen2ForCausalLM"
    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    length: int = 8192
    sequences: int | None = None
    batched: int | None = None
    block: int | None = None
    quantization: str | None = None
    kv_dtype: str = "auto"
    eager: bool = False
    utilization: float | None = None
    device: str = "cuda"
    kv_bytes: int | None = None

    def with_utilization(self, value: float | None) -> "Setup":
        """Return the same with another share of the device."""
        return replace(self, utilization=value)

    @property
    def world(self) -> int:
        """Return the number of ranks of one engine."""
        return self.tensor * self.pipeline


def namespace(setup: Setup) -> tuple[str, dict[str, Setting]]:
    """Return the arguments as `Namespace(...)`, the way of 0.8.5 and before, and what they tell."""
    text = _OLD_ARGUMENTS.format(
        model=f"model={setup.model!r}, ",
        first=f"dtype='auto', kv_cache_dtype={setup.kv_dtype!r}, max_model_len={setup.length}, ",
        second=f"pipeline_parallel_size={setup.pipeline}, tensor_parallel_size={setup.tensor}, "
        f"block_size={setup.block}, ",
        third=f"gpu_memory_utilization={setup.utilization or 0.9}, num_gpu_blocks_override=None, "
        f"max_num_batched_tokens={setup.batched}, max_num_seqs={setup.sequences}, ",
        fourth=f"quantization={setup.quantization!r}, enforce_eager={setup.eager}, ",
    )
    told: dict[str, Setting | None] = {
        "max_model_len": setup.length,
        "pipeline_parallel_size": setup.pipeline,
        "tensor_parallel_size": setup.tensor,
        "block_size": setup.block,
        "max_num_batched_tokens": setup.batched,
        "max_num_seqs": setup.sequences,
        "kv_cache_dtype": None if setup.kv_dtype == "auto" else setup.kv_dtype,
        "quantization": setup.quantization,
        "enforce_eager": setup.eager,
    }
    return f"Namespace({text}", {name: value for name, value in told.items() if value is not None}


def non_default(setup: Setup, *, api_key: str | None = None) -> tuple[str, dict[str, Setting]]:
    """Return the arguments that were given, the way of 0.9.0 and later, and what they tell."""
    given: dict[str, object] = {"model_tag": setup.model, "port": 8000}
    if api_key:
        given["api_key"] = [api_key]
    given |= {"model": setup.model, "max_model_len": setup.length}
    for name, value, default in (
        ("quantization", setup.quantization, None),
        ("enforce_eager", setup.eager, False),
        ("pipeline_parallel_size", setup.pipeline, 1),
        ("tensor_parallel_size", setup.tensor, 1),
        ("data_parallel_size", setup.data, 1),
        ("block_size", setup.block, None),
        ("gpu_memory_utilization", setup.utilization, None),
        ("kv_cache_memory_bytes", setup.kv_bytes, None),
        ("kv_cache_dtype", setup.kv_dtype, "auto"),
        ("max_num_batched_tokens", setup.batched, None),
        ("max_num_seqs", setup.sequences, None),
    ):
        if value != default:
            given[name] = value
    told = {name: value for name, value in given.items() if name in _SETTINGS and isinstance(value, Setting)}
    return repr(given), told


def engine_config(setup: Setup, version: str, engine: str) -> tuple[str, dict[str, Setting]]:
    """Return the text of the engine's configuration line, and what it tells."""
    values = _config_values(setup, version)
    item = pick("life.engine_config", version)
    if at_least(version, "0.7.1"):
        item = record(f"life.engine_config.{11 if engine == 'V1' else 10}")
    elif at_least(version, "0.6.4"):
        old = "8" if not at_least(version, "0.6.5") else "9"
        item = record(f"life.engine_config.{7 if engine == 'V1' else old}")
    assert item is not None
    told: dict[str, Setting] = {
        "max_model_len": setup.length,
        "dtype": "torch.bfloat16",
        "tensor_parallel_size": setup.tensor,
        "enforce_eager": setup.eager,
    }
    if setup.kv_dtype != "auto":
        told["kv_cache_dtype"] = setup.kv_dtype
    if setup.quantization:
        told["quantization"] = setup.quantization
    if at_least(version, "0.5.3"):
        told["pipeline_parallel_size"] = setup.pipeline
    if at_least(version, "0.11.1"):
        told["data_parallel_size"] = setup.data
    if "config" in item.facts:
        values = {"vllm_version": version, "config": _config_text(setup, version), "use_cached_outputs": "True"}
    return render(item, values).text, told


def _config_values(setup: Setup, version: str) -> dict[str, Value]:
    """Return the values of the old configuration lines, where every field is a placeholder of its own."""
    none = "None"
    return {
        "vllm_version": version,
        "model": setup.model,
        "tokenizer": setup.model,
        "speculative_config": _Bare(none),
        "skip_tokenizer_init": "False",
        "tokenizer_mode": "auto",
        "revision": none,
        "tokenizer_revision": none,
        "override_neuron_config": none,
        "rope_scaling": _Bare(none),
        "rope_theta": _Bare(none),
        "trust_remote_code": "False",
        "dtype": "torch.bfloat16",
        "max_model_len": setup.length,
        "download_dir": _Bare(none),
        "load_format": "LoadFormat.AUTO",
        "tensor_parallel_size": setup.tensor,
        "pipeline_parallel_size": setup.pipeline,
        "disable_custom_all_reduce": "False",
        "quantization": str(setup.quantization),
        "enforce_eager": str(setup.eager),
        "kv_cache_dtype": setup.kv_dtype,
        "quantization_param_path": none,
        "device_config": setup.device,
        "decoding_config": _Bare("DecodingConfig(guided_decoding_backend='outlines')"),
        "observability_config": _Bare("ObservabilityConfig(otlp_traces_endpoint=None)"),
        "seed": 0,
        "served_model_name": setup.model,
        "use_v2_block_manager": "False",
        "num_scheduler_steps": 1,
        "chunked_prefill_enabled": "False",
        "multi_step_stream_outputs": "False",
        "enable_prefix_caching": "False",
        "use_async_output_proc": "True",
        "use_cached_outputs": "False",
        "chat_template_text_format": "string",
        "mm_processor_kwargs": none,
        "pooler_config": _Bare(none),
    }


class _Bare(str):
    """A value whose repr is itself: the placeholder is %r and the object is not a string."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _config_text(setup: Setup, version: str) -> str:
    sizes = f"tensor_parallel_size={setup.tensor}, pipeline_parallel_size={setup.pipeline}, "
    if at_least(version, "0.11.1"):
        sizes += f"data_parallel_size={setup.data}, "
    prefill = "enable_chunked_prefill=True" if at_least(version, "0.11.1") else "chunked_prefill_enabled=True"
    return (
        f"model={setup.model!r}, speculative_config=None, tokenizer={setup.model!r}, skip_tokenizer_init=False, "
        "tokenizer_mode=auto, revision=None, tokenizer_revision=None, trust_remote_code=False, dtype=torch.bfloat16, "
        f"max_seq_len={setup.length}, download_dir=None, load_format=auto, {sizes}disable_custom_all_reduce=False, "
        f"quantization={setup.quantization}, enforce_eager={setup.eager}, kv_cache_dtype={setup.kv_dtype}, "
        f"device_config={setup.device}, seed=0, served_model_name={setup.model}, enable_prefix_caching=True, "
        f"{prefill}, "
        'pooler_config=None, compilation_config={"level":3,"cudagraph_capture_sizes":[512,256,8,4,2,1]}'
    )


def api_process(version: str, pid: int = 1) -> Process:
    """Return the process of the HTTP server."""
    return Process("APIServer" if at_least(version, "0.10.1") else None, pid)


def engine_processes(version: str, setup: Setup) -> list[Process]:
    """Return the engine cores of the V1 engine, one for each data-parallel rank."""
    found = []
    for index in range(setup.data):
        if at_least(version, "0.18.0"):
            name: str | None = "EngineCore" if setup.data == 1 else f"EngineCore_DP{index}"
        elif at_least(version, "0.10.2"):
            name = f"EngineCore_DP{index}"
        elif at_least(version, "0.10.1") or (setup.data > 1 and at_least(version, "0.8.3")):
            name = f"EngineCore_{index}"
        else:
            name = None
        found.append(Process(name, 271 + index))
    return found


def workers(version: str, setup: Setup, engines: list[Process]) -> list[Process]:
    """Return the worker processes of the V1 engine in rank order; one rank runs inside the engine core."""
    found = []
    for data in range(setup.data):
        for index in range(setup.world):
            pipeline, tensor = divmod(index, setup.tensor)
            sizes = ((setup.data, "DP", data), (setup.pipeline, "PP", pipeline), (setup.tensor, "TP", tensor))
            label = "_".join(f"{word}{number}" for size, word, number in sizes if size > 1) or "TP0"
            if setup.world == 1:
                core = engines[data]
                found.append(Process(core.name, core.pid, label))
                continue
            if at_least(version, "0.10.2"):
                name = f"Worker_{label}"
            else:
                name = (
                    f"VllmWorker {label.replace('_', ' ')}"
                    if at_least(version, "0.10.1")
                    else f"VllmWorker rank={index}"
                )
            found.append(Process(name, 480 + 10 * data + index, label))
    return found


def before_groups(version: str, worker: Process, setup: Setup) -> Process:
    """Return a worker as it is called before its process groups exist."""
    if setup.world == 1 or not at_least(version, "0.10.2"):
        return worker
    return worker.named("Worker" if at_least(version, "0.18.0") else None)
