"""What `vllm serve` is started with, and what it then assumes."""

import pytest
from packaging.version import Version

from orchestrator.errors import UsageError
from orchestrator.vllm.arguments import accelerators_needed, canonical_name, serve_argv
from orchestrator.vllm.model_config import bundled_models, model_config, parse_model_config
from orchestrator.vllm.settings import default_max_num_batched_tokens, default_max_num_seqs, resolve
from orchestrator.vllm.version import at_least, version_of_image

LLAMA = bundled_models()["meta-llama/Llama-3.1-8B-Instruct"]


def test_the_argv_is_what_a_user_would_type() -> None:
    """The model first, then flags in a stable order, each value as vLLM's own parser reads it."""
    argv = serve_argv(
        "org/model",
        {
            "max-model-len": 16000,
            "enable-prefix-caching": True,
            "async-scheduling": False,
            "gpu-memory-utilization": 0.9,
            "hf-overrides": {"b": [1, True], "a": "x"},
            "middleware": ["one", "two"],
            "dtype": "half",
        },
    )
    assert argv == [
        "org/model",
        "--no-async-scheduling",
        "--dtype=half",
        "--enable-prefix-caching",
        "--gpu-memory-utilization=0.9",
        '--hf-overrides={"a":"x","b":[1,true]}',
        "--max-model-len=16000",
        "--middleware",
        "one",
        "two",
    ]


@pytest.mark.parametrize(
    "name", ["port", "--port", "host", "api_key", "--api-key", "model", "headless", "config", "uds"]
)
def test_arguments_that_kprof_owns_are_refused_with_the_reason(name: str) -> None:
    """Setting them would break probing or leak a key."""
    with pytest.raises(UsageError) as caught:
        canonical_name(name)
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["", "--", "a b", "a;rm", "a=b", "a/b", "$(HF_TOKEN)", "a\nb"])
def test_a_name_that_is_no_flag_is_refused(name: str) -> None:
    """Nothing that a shell or Kubernetes could read otherwise becomes a flag."""
    with pytest.raises(UsageError):
        canonical_name(name)


def test_devices_are_the_product_of_the_parallel_sizes() -> None:
    """Tensor x pipeline x data parallel size."""
    assert accelerators_needed({"tensor-parallel-size": 2, "pipeline-parallel-size": 3, "data-parallel-size": 4}) == 24
    assert accelerators_needed({}) == 1


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("vllm/vllm-openai:v0.11.0", "0.11.0"),
        ("vllm/vllm-openai:v0.11.0-x86_64", "0.11.0"),
        ("vllm/vllm-openai:0.9.0.1", "0.9.0.1"),
        ("registry.local:5000/vllm:v0.19.2rc1", "0.19.2rc1"),
        ("vllm/vllm-openai:v0.11.0@sha256:" + "0a" * 32, "0.11.0"),
        ("vllm/vllm-openai:nightly", None),
        ("vllm/vllm-openai:latest", None),
        ("registry.local:5000/vllm", None),
        ("vllm/vllm-openai@sha256:" + "0a" * 32, None),
    ],
)
def test_the_version_is_read_from_the_image(image: str, version: str | None) -> None:
    """A tag without a release has no version, and a registry's port is none."""
    found = version_of_image(image)
    assert (None if found is None else str(found)) == version


def test_a_development_build_counts_as_its_release() -> None:
    """0.20.0rc1 and 0.20.0.dev1 have what 0.20.0 brought."""
    assert at_least(Version("0.20.0rc1.dev3+gabc"), "0.20.0")
    assert not at_least(Version("0.19.9"), "0.20.0")


def test_defaults_follow_version_and_device() -> None:
    """Utilization rose to 0.92 with 0.20.0; big devices get more sequences and tokens, an A100 does not."""
    old = resolve({}, LLAMA, Version("0.19.0"), 79.18)
    new = resolve({}, LLAMA, Version("0.20.0"), 79.18)
    assert (old.gpu_memory_utilization, new.gpu_memory_utilization) == (0.9, 0.92)
    assert (old.max_num_seqs, old.max_num_batched_tokens) == (1024, 8192)
    small = resolve({}, LLAMA, Version("0.19.0"), 22.03)
    assert (small.max_num_seqs, small.max_num_batched_tokens) == (256, 2048)
    assert default_max_num_seqs(Version("0.19.0"), 79.25, a100=True) == 256
    assert default_max_num_batched_tokens(Version("0.28.0"), 191.98) == 16384
    assert old.max_model_len == LLAMA.max_position_embeddings


def test_what_the_user_wrote_wins_over_every_default() -> None:
    """Numbers may come as text, as a command line gives them."""
    found = resolve(
        {
            "gpu-memory-utilization": "0.5",
            "max-model-len": 4096,
            "max-num-seqs": 8,
            "max-num-batched-tokens": "1024",
            "block-size": 128,
            "kv-cache-dtype": "fp8",
            "tensor-parallel-size": 2,
            "enforce-eager": True,
        },
        LLAMA,
        Version("0.19.0"),
        79.18,
    )
    assert (found.gpu_memory_utilization, found.max_model_len, found.max_num_seqs) == (0.5, 4096, 8)
    assert (found.max_num_batched_tokens, found.block_size, found.kv_cache_dtype_bytes) == (1024, 128, 1)
    assert (found.tensor_parallel_size, found.enforce_eager, found.dtype_bytes) == (2, True, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        {"gpu-memory-utilization": "much"},
        {"gpu-memory-utilization": 0},
        {"gpu-memory-utilization": "1.5"},
        {"gpu-memory-utilization": "nan"},
        {"max-num-seqs": 0},
        {"block-size": "x"},
        {"tensor-parallel-size": -1},
        {"kv-cache-memory-bytes": "1GiB?"},
        {"num-gpu-blocks-override": "many"},
    ],
    ids=str,
)
def test_a_value_that_vllm_would_refuse_is_a_usage_error(arguments: dict[str, str | int]) -> None:
    """`plan` and the simulator say so before anything starts."""
    with pytest.raises(UsageError):
        resolve(dict(arguments), LLAMA, Version("0.19.0"), 79.18)


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    """kprof never asks a model hub, so it says which shapes it has."""
    with pytest.raises(UsageError, match="org/unknown") as caught:
        model_config("org/unknown")
    assert "Qwen/Qwen3-0.6B" in (caught.value.remedy or "")


def test_a_config_that_lacks_a_field_names_it() -> None:
    """A truncated config.json is a usage error, not a KeyError."""
    with pytest.raises(UsageError, match="hidden_size"):
        parse_model_config({"num_attention_heads": 8}, "x")
