"""Working notes about patched vllm-ascend builds: excerpts without heads, both profiling methods, raw bytes."""

import pytest

from orchestrator.vllm_log import StartUp, parse_log
from tests.unit.vllm_log.log_lines import checks, read_all

NOTES = """# Memory tests

vllm serve Qwen/Qwen3-VL-8B-Instruct --tensor-parallel-size 2 --max-model-len 65536 --gpu-memory-utilization 0.95

## Old method

**0.95:**
Loading model weights took 9.1948 GB
Available memory: 43.396 GiB, total memory: 60.96 GiB

**0.9:**
torch_memory before profiling is 10.25 G
torch_peak before profiling is 9.45 G
non_torch_memory before profiling is 0.36 G

torch_memory after profiling is 9.75 G
torch_peak after profiling is 13.30 G
non_torch_memory after profiling is 0.91 G

# results of real profiling:
peak_memory after profiling is 13.30 G
non_torch_memory after profiling is 1.21 G  # updated:

Available memory: 40.35 GiB, requested memory: 54.86 GiB

## New method

**0.95:** 3409 / 65536 before, 59614 / 65536 after
torch_memory before init HCCL is 0.00 G
torch_peak before init HCCL is 0.00 G
non_torch_memory before init HCCL is 0.35 G

torch_memory after init HCCL is 0.00 G
torch_peak after init HCCL is 0.00 G
non_torch_memory after init HCCL is 0.35 G

# Loading weights took 4.29 seconds
Loading model weights took 9.1948 GB
torch_memory before profiling is 9.75 G
torch_peak before profiling is 9.45 G
non_torch_memory before profiling is 0.36 G
# Encoder cache will be initialized with a budget of 32768 tokens, and profiled with 2 image items of the maximum feature size. (2.25 G ?)

torch_memory after profiling multi-modal is 17.69 G
torch_peak after profiling multi-modal is 13.30 G
non_torch_memory after profiling multi-modal is 1.05 G

torch_memory after profiling, before empty_cache() is 19.13 G
torch_peak after profiling, before empty_cache() is 13.30 G
non_torch_memory after profiling, before empty_cache() is 1.07 G

torch_memory after profiling, after empty_cache() is 9.75 G
torch_peak after profiling, after empty_cache() is 13.30 G
non_torch_memory after profiling, after empty_cache() is 0.91 G
peak_activation_memory new is 4.11 G

Initial free memory: 60.61 GiB; Requested memory: 0.95 (util), 57.91 GiB
Free memory after profiling: 50.30 GiB (total), 47.60 GiB (within requested)

Total non KV cache memory: 13.61 GiB;  # 13.86 G -> 14.37 G
torch peak memory increase: 3.86 GiB;  # peak = 13.30, increase = 4.11 ?
non-torch forward increase memory: 0.56 GiB;  # 1.06 G
weights memory: 9.19 GiB.

Available KV cache memory: 44.30 GiB  # 44.05 G -> 43.54 G
GPU KV cache size: 645,120 tokens  # ... -> 633,984

KV cache memory: **44.30** GiB + Total non KV cache memory: **13.61** GiB = Requested memory **57.91** GiB

**0.9:**
Available KV cache memory: 40.49 GiB
"""  # noqa: E501


@pytest.fixture(scope="module")
def found() -> list[StartUp]:
    """Return the start-ups of the notes."""
    return parse_log(NOTES.encode())


def test_each_excerpt_is_a_start_up_of_its_own(found: list[StartUp]) -> None:
    """No head and no banner between them: a figure of an earlier stage begins the next one."""
    assert [one.facts.get("kv_cache_gib") for one in found] == [43.396, 40.35, 44.3, 40.49]
    assert [one.facts.get("weights_gib") for one in found] == [9.1948, None, 9.1948, None]
    assert [one.facts.get("device_total_gib") for one in found] == [60.96, None, None, None]


def test_the_old_method_is_read_with_its_moments(found: list[StartUp]) -> None:
    """The corrected figure of the same moment counts; peak + non-torch + KV cache = requested."""
    old = found[1]
    assert old.phases == {
        "before profiling": {
            "torch_memory_gib": 10.25, "torch_peak_gib": 9.45, "non_torch_memory_gib": 0.36,
        },
        "after profiling": {
            "torch_memory_gib": 9.75, "torch_peak_gib": 13.3, "non_torch_memory_gib": 1.21,
        },
    }  # fmt: skip
    assert (old.facts["torch_peak_gib"], old.facts["non_torch_gib"], old.facts["requested_gib"]) == (13.3, 1.21, 54.86)
    assert checks(old, "budget_identity")["TP0"].ok


def test_the_new_method_is_read_with_its_moments(found: list[StartUp]) -> None:
    """Before and after HCCL, the weights, the images and `empty_cache()`."""
    moments = {moment: list(figures.values()) for moment, figures in found[2].phases.items()}
    assert moments == {
        "before init HCCL": [0.0, 0.0, 0.35],
        "after init HCCL": [0.0, 0.0, 0.35],
        "before profiling": [9.75, 9.45, 0.36],
        "after profiling multi-modal": [17.69, 13.3, 1.05],
        "after profiling, before empty_cache()": [19.13, 13.3, 1.07],
        "after profiling, after empty_cache()": [9.75, 13.3, 0.91, 4.11],
    }
    assert found[2].phases["after profiling, after empty_cache()"]["peak_activation_memory_gib"] == 4.11


def test_the_new_method_gives_every_fact(found: list[StartUp]) -> None:
    """What stands behind a # is somebody's remark; the same weights rounded do not replace the exact ones."""
    facts = found[2].to_json("x")["facts"]
    assert facts == {
        "weights_gib": 9.1948, "activation_gib": 3.86, "non_torch_gib": 0.56, "non_kv_cache_gib": 13.61,
        "encoder_cache_tokens": 32768, "encoder_items": 2, "kv_cache_gib": 44.3, "kv_cache_tokens": 645120,
        "device_free_gib": 60.61, "requested_gib": 57.91, "utilization_ratio": 0.95, "free_after_profile_gib": 50.3,
        "free_in_request_gib": 47.6,
    }  # fmt: skip


def test_the_sums_of_the_new_method_hold(found: list[StartUp]) -> None:
    """44.30 + 13.61 = 57.91, and 3.86 + 0.56 + 9.19 = 13.61."""
    for name in ("budget_identity", "profile_sum"):
        check = checks(found[2], name)["TP0"]
        assert check.ok
        assert check.residual == pytest.approx(0, abs=0.011)
    assert all(check.ok for one in found for check in one.checks)


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("Available KV cache memory: 44.30 GiB", "Available KV cache memory: 43.30 GiB", "budget_identity"),
        ("torch peak memory increase: 3.86 GiB", "torch peak memory increase: 4.11 GiB", "profile_sum"),
    ],
)
def test_a_sum_that_does_not_hold_is_flagged(old: str, new: str, name: str) -> None:
    """One figure changed: the check is broken, the figures stay as printed."""
    changed = parse_log(NOTES.replace(old, new).encode())[2]
    assert not checks(changed, name)["TP0"].ok
    assert changed.facts["requested_gib"] == 57.91


def test_bytes_over_two_lines_are_read() -> None:
    """Available and total memory, in bytes, each on its own line."""
    (found,) = read_all(
        "Loading model weights took 31.4592 GB",
        "Encoder cache will be initialized with a budget of 16384 tokens, and profiled with 1 image items of the "
        "maximum feature size.",
        "",
        "Available memory: 21540531712",
        "    total memory: 65452113920",
    )
    assert found.to_json("x")["facts"] == {
        "weights_gib": 31.4592, "encoder_cache_tokens": 16384, "encoder_items": 1,
        "kv_cache_gib": pytest.approx(20.0612, abs=1e-4), "device_total_gib": pytest.approx(60.9570, abs=1e-4),
    }  # fmt: skip


def test_the_suggestion_of_vllm_ascend_is_read() -> None:
    """Its words differ from CUDA's."""
    (found,) = read_all(
        "Free memory on device (60.61/60.96 GiB) on startup. Desired GPU memory utilization is (0.95, 57.91 GiB). "
        "Actual usage: 9.19 GiB for weights, 3.86 GiB for peak activation, 0.56 GiB for non-torch memory, 0.43 GiB for "
        "NPU graph memory. Current KV cache memory: 44.30 GiB."
    )
    wanted = {"weights_gib": 9.19, "activation_gib": 3.86, "non_torch_gib": 0.56, "cuda_graph_gib": 0.43}
    assert wanted.items() <= found.facts.items()
    assert checks(found, "budget_identity")["TP0"].ok
    assert checks(found, "requested_share")["TP0"].ok
