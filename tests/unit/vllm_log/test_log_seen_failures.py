"""Failures as people have posted them, with what wraps them: containers, launchers, other libraries."""

import pytest

from orchestrator.vllm_log import LogParser
from tests.unit.vllm_log.log_lines import READY, failed, read, read_all, record, server, text

OOM = record("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB.", level="ERROR")
RETRY = (
    "(APIServer pid=1) '(MaxRetryError(\"HTTPSConnectionPool(host='huggingface.co', port=443): Max retries\"))' "
    "thrown while requesting HEAD https://huggingface.co/org/model/resolve/main/config.json"
)


def _error(words: str) -> str:
    return record(words, level="ERROR")


@pytest.mark.parametrize(
    "wrapper",
    [
        "[rank0]: ",
        "[default0]:[rank0]: ",
        "gemma-vllm-server  | ",
        "2026-03-01T10:11:12.123456789Z ",
        "2026-03-01 10:11:12.123 | ",
        "[2026-03-01 10:11:12,123] ",
        "Mar  1 10:11:12 node-1 vllm.service[123]: ",
        "vllm-1  | 2026-03-01T10:11:12Z [rank1]: ",
    ],
)
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("KeyError: 'model.layers.27.mlp.experts.w2_weight_scale_inv'", "unknown"),
        ("AssertionError", "unknown"),
        ("  Value error, max_num_batched_tokens is odd", "config.argument"),
        ("ModuleNotFoundError: No module named 'timm'", "config.unsupported"),
    ],
)
def test_an_exception_is_found_behind_what_wraps_it(wrapper: str, words: str, kind: str) -> None:
    """Docker compose, kubectl, journald and torchrun put words of their own before every line."""
    assert failed(wrapper + words).kind == kind


@pytest.mark.parametrize("time", ["2025-11-25 15:18:55.343", "2025-11-25 15:18:55", "11-25 15:18:55,343"])
def test_a_head_may_carry_the_year_and_milliseconds(time: str) -> None:
    """vllm-ascend's images log so."""
    failure = failed(f"(Worker_TP5 pid=7129) ERROR {time} [multiproc_executor.py:671] RuntimeError: The Inner error")
    assert (failure.kind, failure.rank) == ("unknown", "TP5")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("huggingface_hub.utils._http.OfflineModeIsEnabled: Cannot reach https://huggingface.co/api/models/org/model: "
         "offline mode is enabled. To disable it, please unset the `HF_HUB_OFFLINE` environment variable.",
         "model.unreachable"),
        ("requests.exceptions.HTTPError: 429 Client Error: Too Many Requests for url: https://huggingface.co/api",
         "model.unreachable"),
        ("triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 98304, Hardware limit: 65536",
         "config.unsupported"),
        ("(EngineCore_DP0 pid=1477831) ptxas fatal   : Value 'sm_121a' is not defined for option 'gpu-name'",
         "config.unsupported"),
        ("RuntimeError: CUDA error: the provided PTX was compiled with an unsupported toolchain.",
         "config.unsupported"),
        ("RuntimeError: HIP error: invalid device function", "config.unsupported"),
        ("RuntimeError: FlashAttention only supports Ampere GPUs or newer.", "config.unsupported"),
        ("NotImplementedError: bitsandbytes quantization is currently not supported in rocm.", "config.unsupported"),
        ("ValueError: XFormers does not support attention logits soft capping.", "config.unsupported"),
        ("ValueError: GGUF model with architecture qwen3next is not supported yet.", "config.unsupported"),
        ("ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
         "config.unsupported"),
        ("ModuleNotFoundError: No module named 'vllm._C'", "config.unsupported"),
        ("RuntimeError: Failed to find C compiler. Please specify via CC environment variable.", "config.unsupported"),
        ("  Value error, The repository org/model contains custom code which must be executed to correctly load",
         "config.unsupported"),
        ("  Value error, Must use group quantization strategy in order to apply activation ordering",
         "config.unsupported"),
        ("  Value error, Cannot find the config file for awq_marlin", "config.unsupported"),
        ("RuntimeError: Worker failed with error 'Only SM 10.x and 11.x are supported', please check the stack trace",
         "config.unsupported"),
        ("To serve at least one request with the models's max seq len (40960), ", "kv.context_too_long"),
        ("ValueError: To serve at least one request with the models's max seq len (262144), (12.00 GiB KV cachasing "
         "`max_model_len` when initializing the engine.", "kv.context_too_long"),
        ("ValueError: LoRA rank 32 is greater than max_lora_rank 16.", "config.argument"),
        ("ValueError: Chunked MM input disabled but max_tokens_per_mm_item (2496) is larger than "
         "max_num_batched_tokens (2048).", "config.argument"),
        ("KeyError: 'invalid tool call parser: gemma4 (chose from { hermes })'", "config.argument"),
        ("ValueError: Unknown Mamba SSU backend: 'CUDA'. Valid options are: triton", "config.argument"),
        ("  Unexpected keyword argument [type=unexpected_keyword_argument, input_value='x', input_type=str]",
         "config.argument"),
        ("ValueError: VLLM_PORT 'tcp://10.100.0.1:8000' appears to be a URI.", "config.argument"),
        ("ValueError: Weight output_partition_size = 576 is not divisible by weight quantization block_n = 128.",
         "config.parallelism"),
        ("ValueError: The output_size of gate's and up's weight = 192 is not divisible by weight quantization block_n "
         "= 128.", "config.parallelism"),
        ("safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
         "model.missing"),
        ("ValueError: Unrecognized model in /models/x. Should have a `model_type` key in its config.json.",
         "model.missing"),
        ("ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.", "host.oom"),
        ("ChildProcessError: worker died (-9)", "host.oom"),
        ("[2025-06-16 17:17:39] kilo:318:3584 [5] misc/ibvwrap.cc:183 NCCL WARN Call to ibv_reg_dmabuf_mr failed with "
         "error Cannot allocate memory", "comm.failure"),
        ("host:1:1 [3] include/shm.h:28 NCCL WARN Call to posix_fallocate failed : No space left on device",
         "comm.failure"),
        ("cupy_backends.cuda.libs.nccl.NcclError: NCCL_ERROR_SYSTEM_ERROR: unhandled system error", "comm.failure"),
        ("RuntimeError: Current node has no GPU available.", "gpu.insufficient"),
        ("RuntimeError: Did not receive response from front-end process within 5 minutes", "hang"),
        ("!!!!!!! Segfault encountered !!!!!!!", "engine.died"),
        ("RuntimeError: Worker failed with error '', please check the stack trace above for the root cause",
         "engine.died"),
    ],
)  # fmt: skip
def test_what_people_have_met(line: str, kind: str) -> None:
    """The only failing line of the log; it is the evidence, and there is advice."""
    failure = failed(line)
    assert failure.kind == kind
    assert failure.evidence.line_number == 1
    assert failure.remedy


def test_too_few_devices_told_by_a_warning() -> None:
    """Ray then waits for a placement group for ever."""
    line = record("The number of required GPUs exceeds the total number of available GPUs in the placement group.",
                  level="WARNING", process="")  # fmt: skip
    assert failed(line).kind == "gpu.insufficient"


@pytest.mark.parametrize(
    "line",
    [
        record('Error retrieving safetensors: (MaxRetryError("HTTPConnectionPool(host=..."), retrying 1 of 2',
               level="ERROR", process="APIServer"),
        "/usr/lib/python3.12/multiprocessing/resource_tracker.py:123: UserWarning: resource_tracker: process died "
        "unexpectedly, relaunching.  Some resources might leak.",
        "OutOfMemoryError: out of resource: triton_mm Required: 131072 Hardware limit:101376 Reducing block sizes or "
        "`num_stages` may help..",
    ],
)  # fmt: skip
def test_what_start_ups_live_through(line: str) -> None:
    """No failure, and none that would hide the real one."""
    assert read(line).failure is None
    assert failed(line, OOM).kind == "oom"


def test_a_try_to_reach_the_hub_is_weaker_than_what_ended_the_start_up() -> None:
    """It is tried again, and may work then."""
    assert failed(RETRY, OOM).kind == "oom"
    assert failed(RETRY).kind == "model.unreachable"


def test_a_configuration_that_cannot_be_loaded_from_a_hub_that_is_away() -> None:
    """The last exception blames the name, the line before it tells why."""
    line = "OSError: Can't load the configuration of 'org/model'. If you were trying to load it from"
    assert failed(RETRY, line).kind == "model.unreachable"
    assert failed(line).kind == "model.missing"


def test_an_exception_outranks_a_warning() -> None:
    """Warnings are looked at when nothing else tells why."""
    warning = record("Failed to import from vllm._C with ImportError('libcuda.so.1: cannot open shared object file')",
                     level="WARNING")  # fmt: skip
    assert failed(warning, _error("KeyError: 'layers.0.mlp.weight_scale'")).kind == "unknown"
    assert failed(warning, _error("EngineCore failed to start.")).kind == "gpu.insufficient"
    assert failed(warning, "vllm: died", "ValueError: Unknown x. Valid options are: y").kind == "config.argument"


def test_an_exception_that_tells_of_another_process_gives_way() -> None:
    """What the process itself said is the cause."""
    lines = ["subprocess.CalledProcessError: Command '['/usr/bin/python3', '-m', "
             "'vllm.model_executor.models.registry']' returned non-zero exit status 1.",
             "RuntimeError: Error raised in subprocess:",
             "AttributeError: module 'triton.language' has no 'exp'"]  # fmt: skip
    failure = failed(*(_error(line) for line in lines))
    assert (failure.kind, failure.evidence.line_number) == ("unknown", 3)


def test_a_server_at_work_is_ready_wherever_its_log_begins() -> None:
    """Of a server that has run for weeks, the first lines are gone; a request that failed is no start-up that did."""
    error = "(APIServer pid=1) ValueError: Tool call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9."
    served = record("Engine 000: Avg prompt throughput: 5.2 tokens/s, Avg generation throughput: 3.3 tokens/s",
                    process="APIServer", file="loggers")  # fmt: skip
    for lines in ((error, served), (served, error), (READY, served, error)):
        found = read(*lines)
        assert (found.engine_ready, found.failure) == (True, None)


@pytest.mark.parametrize("function", ["profile_cudagraph_memory", "graph_capture"])
def test_out_of_memory_while_the_graphs_are_estimated(function: str) -> None:
    """The profile captures graphs to see what they take."""
    frames = [
        _error(f'  File "/vllm/v1/worker/gpu_model_runner.py", line 1, in {name}')
        for name in ("determine_available_memory", function)
    ]
    traceback = _error("Traceback (most recent call last):")
    failure = failed(traceback, *frames, _error("torch.AcceleratorError: CUDA error: out of memory"))
    assert failure.kind == "oom.graph_capture"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ValueError: Free memory on device (0.34/23.56 GiB) on startup is less than desired GPU memory utilization "
         "(0.9, 21.2 GiB).", "only 0.34 of 23.56 GiB are free"),
        ("OSError: [Errno 98] Address already in use", "another --port"),
        ("ValueError: max_num_seqs (1024) exceeds available Mamba cache blocks (854)", "lower --max-num-seqs"),
        ("ValueError: VLLM_PORT 'tcp://10.100.0.1:8000' appears to be a URI.", "enableServiceLinks"),
        ("ValueError: Weight output_partition_size = 576 is not divisible by weight quantization block_n = 128.",
         "smaller --tensor-parallel-size"),
        ("AssertionError: 151936 is not divisible by 5", "divides the size that the line names"),
    ],
)  # fmt: skip
def test_advice_that_fits_the_line(line: str, words: str) -> None:
    """What would help with this very message."""
    assert words in (failed(line).remedy or "")


@pytest.mark.parametrize(
    "line",
    [
        "host:1:1 [0] misc/socket.cc:1 NCCL WARN Call to bind failed: Address already in use",
        "host:1:1 [0] misc/ibvwrap.cc:183 NCCL WARN Call to ibv_reg_mr failed with error Cannot allocate memory",
        RETRY,
        record("The number of required GPUs exceeds the total number of available GPUs in the placement group.",
               level="WARNING"),
        "Returning existing local_dir `/m` as remote repo cannot be accessed in `snapshot_download` (429 Client Error)",
        "wandb: Network error (HTTPError), entering retry loop. 502 Server Error: Bad Gateway",
        "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 98304",
        "(raylet) Memory on the node exceeds the memory usage threshold of 0.95.",
    ],
)  # fmt: skip
def test_a_start_up_goes_on_after_what_is_only_a_hint(line: str) -> None:
    """It is no event, begins no other start-up, and is nothing once the server is up or tells better."""
    banner, up = server("0.19.0"), record("init engine (profile, create kv cache, warmup model) took 9.00 seconds")
    assert [event.name for event in LogParser().feed(text(banner, line))] == []
    for lines in ((line, banner, up), (banner, line, up)):
        found = read(*lines)
        assert (found.engine_ready, found.failure) == (True, None)
    assert failed(banner, line, OOM).kind == "oom"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (_error("subprocess.CalledProcessError: Command '['/usr/bin/gcc', '-O3']' returned non-zero exit status 1."),
         "unknown"),
        (_error("torch._inductor.exc.InductorError: NoTritonConfigsError: No valid triton configs. PTXASError: x"),
         "config.unsupported"),
        (_error("TypeError: '<' not supported between instances of 'NoneType' and 'int'"), "unknown"),
        ("  Value error, num_speculative_tokens:5 must be divisible by n_predict=2 [type=value_error, "
         "input_value=ArgsKwargs((), {'quantization': None}), input_type=ArgsKwargs]", "config.argument"),
    ],
)  # fmt: skip
def test_the_line_that_tells_is_kept(line: str, kind: str) -> None:
    """Words that are harmless elsewhere do not hide it, nor those that follow."""
    last = "ImportError: sys.meta_path is None, Python is likely shutting down"
    failure = failed(server("0.19.0"), line, _error("EngineCore failed to start."), last)
    assert (failure.kind, failure.evidence.line_number) == (kind, 2)


def test_engines_side_by_side_are_one_start_up() -> None:
    """Both told their start: neither is the other one started again."""
    start = "Initializing a V1 LLM engine (v0.19.0) with config: model='m', tensor_parallel_size=1"
    lines = [record(words, pid=pid) for words in (start, "Available KV cache memory: 8.0 GiB") for pid in (5, 6)]
    assert len(read_all(server("0.19.0"), *lines)) == 1


@pytest.mark.parametrize("name", ["open-webui", "litellm-1"])
def test_another_service_of_the_same_compose_file(name: str) -> None:
    """What it says is not vLLM's."""
    assert read(f"{name}  | KeyError: 'OPENAI_KEY'").failure is None
