"""The settings that drive memory: what was asked for, and what a default came to."""

import pytest

from tests.unit.vllm_log.log_lines import read, read_all, record

NAMESPACE = (
    "args: Namespace(host=None, port=8000, api_key=None, model='Qwen/Qwen2.5-14B-Instruct', dtype='auto', "
    "kv_cache_dtype='fp8', max_model_len=None, tensor_parallel_size=2, pipeline_parallel_size=1, block_size=16, "
    "gpu_memory_utilization=0.85, max_num_batched_tokens=None, max_num_seqs=256, quantization=None, "
    "enforce_eager=False, compilation_config=None)"
)
NON_DEFAULT = (
    "non-default args: {'model': 'm', 'max_model_len': 32768, 'tensor_parallel_size': 4, 'block_size': 16, "
    "'gpu_memory_utilization': 0.85, 'max_num_batched_tokens': 8192, 'max_num_seqs': 256, 'enforce_eager': True, "
    "'kv_cache_dtype': 'fp8_e4m3', 'quantization': 'awq', 'kv_cache_memory_bytes': 42949672960}"
)
ENGINE = (
    "Initializing a V1 LLM engine (v0.9.0.1) with config: model='m', speculative_config=None, dtype=torch.bfloat16, "
    "max_seq_len=131072, download_dir=None, load_format=LoadFormat.AUTO, tensor_parallel_size=1, "
    "pipeline_parallel_size=2, disable_custom_all_reduce=False, quantization=None, enforce_eager=True, "
    'kv_cache_dtype=auto,  device_config=cuda, compilation_config={"max_capture_size": 0}'
)


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        pytest.param(
            NAMESPACE,
            {
                "kv_cache_dtype": "fp8", "tensor_parallel_size": 2, "pipeline_parallel_size": 1, "block_size": 16,
                "gpu_memory_utilization": 0.85, "max_num_seqs": 256, "enforce_eager": False,
            },
            id="Namespace",
        ),
        pytest.param(
            NON_DEFAULT,
            {
                "max_model_len": 32768, "tensor_parallel_size": 4, "block_size": 16, "gpu_memory_utilization": 0.85,
                "max_num_batched_tokens": 8192, "max_num_seqs": 256, "enforce_eager": True,
                "kv_cache_dtype": "fp8_e4m3", "quantization": "awq", "kv_cache_memory_bytes": 42949672960,
            },
            id="non-default args",
        ),
        pytest.param(
            ENGINE,
            {
                "dtype": "torch.bfloat16", "max_model_len": 131072, "tensor_parallel_size": 1,
                "pipeline_parallel_size": 2, "enforce_eager": True,
            },
            id="engine",
        ),
        pytest.param("Using max model len 4096", {"max_model_len": 4096}, id="derived length"),
        pytest.param(
            "Defaulting max_num_seqs to 1024 for OPENAI_API_SERVER usage context.", {"max_num_seqs": 1024}, id="seqs"
        ),
        pytest.param(
            "Defaulting max_num_batched_tokens to 8192 for OPENAI_API_SERVER usage context.",
            {"max_num_batched_tokens": 8192},
            id="tokens 0.11.1+",
        ),
        pytest.param(
            "Setting max_num_batched_tokens to 2048 for LLM_CLASS usage context.",
            {"max_num_batched_tokens": 2048},
            id="tokens until 0.11.0",
        ),
        pytest.param(
            "Chunked prefill is enabled with max_num_batched_tokens=8192.", {"max_num_batched_tokens": 8192}, id="chunk"
        ),
    ],
)  # fmt: skip
def test_a_line_tells_its_settings(line: str, settings: dict[str, object]) -> None:
    """None and auto are no values; what is not named is not guessed."""
    assert read(record(line)).to_json("x")["settings"] == settings


def test_later_lines_win() -> None:
    """What the engine used in the end counts, not what was asked for."""
    found = read(
        record("non-default args: {'max_model_len': 32768, 'max_num_seqs': 64}"),
        record("Using max model len 4096"),
        record("Defaulting max_num_batched_tokens to 8192 for OPENAI_API_SERVER usage context."),
        record("Chunked prefill is enabled with max_num_batched_tokens=2048."),
    )
    assert found.settings == {"max_model_len": 4096, "max_num_seqs": 64, "max_num_batched_tokens": 2048}


def test_none_in_a_later_line_keeps_what_is_known() -> None:
    """`quantization=None` of the engine line is no answer to the earlier `awq`."""
    found = read(record("non-default args: {'quantization': 'awq'}"), record(ENGINE))
    assert found.settings["quantization"] == "awq"


@pytest.mark.parametrize(
    "line",
    [
        "non-default args: {'speculative_config': {'model': 'd', 'max_model_len': 2048, 'quantization': 'fp8'}, "
        "'max_model_len': 8192, 'tensor_parallel_size': 2}",
        "non-default args: {'max_model_len': 8192, 'tensor_parallel_size': 2, 'speculative_config': {'model': 'd', "
        "'max_model_len': 2048, 'quantization': 'fp8', 'draft_tensor_parallel_size': 1}}",
        "args: Namespace(tensor_parallel_size=2, speculative_config={'method': 'x', 'max_model_len': 2048, "
        "'quantization': 'fp8'}, max_model_len=8192)",
    ],
)
def test_the_settings_of_a_draft_model_are_not_the_engine_s(line: str) -> None:
    """A setting inside another one's dictionary belongs to that."""
    assert read(record(line)).settings == {"max_model_len": 8192, "tensor_parallel_size": 2}


@pytest.mark.parametrize("value", ["'x'", "-1", "nan", "1e99", "", "[1, 2]", "9" * 40, "0.5"])
def test_a_value_of_the_wrong_kind_is_left_out(value: str) -> None:
    """A damaged line, or -1 for `fit it yourself`: no length."""
    assert read(record(f"non-default args: {{'max_model_len': {value}, 'max_num_seqs': 8}}")).settings == {
        "max_num_seqs": 8
    }


@pytest.mark.parametrize("value", ["0.95", "0.95000"])
def test_a_share_is_a_number(value: str) -> None:
    """However many digits were typed."""
    assert read(record(f"non-default args: {{'gpu_memory_utilization': {value}}}")).settings == {
        "gpu_memory_utilization": 0.95
    }


def test_settings_belong_to_their_start_up() -> None:
    """The next start-up of the file does not inherit them."""
    lines = [record("vLLM API server version 0.9.2"), record(NON_DEFAULT), record("Application startup complete.")]
    lines += [record("vLLM API server version 0.9.2"), record("non-default args: {'max_num_seqs': 8}")]
    assert read_all(*lines)[1].settings == {"max_num_seqs": 8}
