"""Identities between the figures: they hold, or they flag the result; they never change a number."""

import pytest

from orchestrator.vllm_log import against_metrics, bytes_per_token
from tests.unit.vllm_log.log_lines import checks, read, record, server

REPR = (
    "Memory profiling takes 17.96 seconds. Total non KV cache memory: {total}GiB; torch peak memory increase: 1.89GiB; "
    "non-torch forward increase memory: 0.25GiB; weights memory: 14.99GiB."
)
REQUESTED = "Initial free memory: 78.68 GiB; Requested memory: 0.950000 (util), 75.23 GiB"
ESTIMATE = "Estimated CUDA graph memory: 0.84 GiB total"
V0_GIVEN = "the current vLLM instance can use total_gpu_memory (79.19GiB) x gpu_memory_utilization (0.90) = 71.27GiB"
V0_FOUND = (
    "model weights take 12.55GiB; non_torch_memory takes 0.16GiB; PyTorch activation peak memory takes 2.38GiB; the "
    "rest of the memory reserved for KV Cache is {kv}GiB."
)
V0_ONE_LINE = (
    "Memory profiling results: total_gpu_memory=79.19GiB initial_memory_usage=0.50GiB peak_torch_memory=14.93GiB "
    "memory_usage_post_profile=0.66Gib non_torch_memory=0.16GiB kv_cache_size={kv}GiB gpu_memory_utilization=0.90"
)
CONSUMED = (
    "Free memory on device (78.1/79.25 GiB) on startup. Desired GPU memory utilization is (0.92, 72.91 GiB). Actual "
    "usage is 25.86 GiB for consumed memory (weights + non-torch), 2.32 GiB for peak activation, and 1.01 GiB for "
    "CUDAGraph memory. Current kv cache memory in use is {kv} GiB."
)
CPU = (
    "Auto set ({kv}/22.59) GiB for KV cache on node 0, with 4.52 GiB requested memory for the worker. 0.65 GiB memory "
    "was consumed by non-kv usages."
)
EXTERNAL = (
    "Weights are held outside this process: of the 75.23 GiB utilization budget, 14.99 GiB is externally held and "
    "60.24 GiB remains for the engine's own allocations."
)
AVAILABLE = "Available KV cache memory: {kv} GiB"
BUDGETS = {
    "V0 0.9": ("0.9.2", (V0_GIVEN, V0_FOUND), "56.18"),
    "0.12": ("0.12.0", (REQUESTED, REPR.format(total="17.12"), AVAILABLE), "58.11"),
    "0.19, estimate printed only": ("0.19.0", (REQUESTED, REPR.format(total="17.12"), ESTIMATE, AVAILABLE), "58.11"),
    "0.22, estimate taken": ("0.22.0", (REQUESTED, REPR.format(total="17.12"), ESTIMATE, AVAILABLE), "57.26"),
    "0.27": ("0.27.1", ("Model loading took 25.69 GiB memory and 9.0 seconds", ESTIMATE, CONSUMED), "44.73"),
    "CPU": ("0.32.0", (CPU,), "3.87"),
}


@pytest.mark.parametrize("name", BUDGETS)
def test_the_budget_of_a_rank_closes_in_every_version(name: str) -> None:
    """Requested = what was found to be in use + KV cache, by the rule of the version."""
    version, lines, kv_cache = BUDGETS[name]
    found = read(server(version), *(record(line.replace("{kv}", kv_cache), process="Worker_TP0") for line in lines))
    check = checks(found, "budget_identity")["TP0"]
    assert check.ok
    assert check.residual == pytest.approx(0, abs=0.021)
    assert all(one.ok for one in found.checks)


@pytest.mark.parametrize("name", BUDGETS)
def test_a_budget_that_does_not_close_is_flagged_and_changes_nothing(name: str) -> None:
    """One GiB less for the KV cache: the residual is that GiB, the figures stay as printed."""
    version, lines, kv_cache = BUDGETS[name]
    less = f"{float(kv_cache) - 1:.2f}"
    found = read(server(version), *(record(line.replace("{kv}", less), process="Worker_TP0") for line in lines))
    check = checks(found, "budget_identity")["TP0"]
    assert not check.ok
    assert check.residual == pytest.approx(1, abs=0.021)
    assert (found.facts["kv_cache_gib"], found.failure) == (float(less), None)
    shown = next(one for one in found.to_json("x")["checks"] if one["name"] == "budget_identity")
    assert (shown["rank"], shown["ok"], shown["residual_gib"]) == ("TP0", False, pytest.approx(1, abs=0.021))


def test_each_rank_has_its_own_budget() -> None:
    """A broken rank is named; the other one holds."""
    found = read(
        server("0.12.0"),
        *(
            record(line, process=f"Worker_TP{rank}", pid=rank)
            for rank, kv in ((0, "58.11"), (1, "50.00"))
            for line in (REQUESTED, REPR.format(total="17.12"), AVAILABLE.replace("{kv}", kv))
        ),
    )
    assert {rank: check.ok for rank, check in checks(found, "budget_identity").items()} == {"TP0": True, "TP1": False}


def test_a_missing_term_makes_no_check() -> None:
    """An INFO log of 0.12 does not tell the activation: nothing is claimed."""
    found = read(
        server("0.12.0"),
        record("Model loading took 14.99 GiB memory and 7.0 seconds"),
        record(AVAILABLE.replace("{kv}", "58.11")),
    )
    assert found.checks == []


def test_the_parts_of_the_profile_add_up_or_are_flagged() -> None:
    """Total = activation + non-torch + weights, until 0.26."""
    for total, ok in (("17.12", True), ("17.13", True), ("18.00", False)):
        assert checks(read(record(REPR.format(total=total))), "profile_sum")["TP0"].ok is ok


def test_a_reserve_for_images_and_weights_held_elsewhere_belong_to_the_budget() -> None:
    """Both leave the KV cache less than the profile alone would."""
    reserve = (
        "Reserving 2.0 GiB of GPU memory for frontend multimodal decoding (1.0 GiB raw-frame semaphore budget, 1.0 GiB "
        "decoder+CUDA-context across 1 API server(s) @ 1.0 GiB/server); KV cache memory reduced to 56.11 GiB."
    )
    found = read(
        server("0.25.0"), record(REQUESTED), record(REPR.format(total="17.12")), record("Available KV cache memory: "
        "58.11 GiB"), record(reserve),
    )  # fmt: skip
    assert checks(found, "budget_identity")["TP0"].ok
    held = CONSUMED.replace("25.86", "0.31").replace("72.91", "75.23").replace("{kv}", "57.61")
    found = read(server("0.32.0"), record(EXTERNAL), record(held))
    assert checks(found, "budget_identity")["TP0"].ok


@pytest.mark.parametrize(
    ("first", "second", "ok"),
    [
        (("Worker_TP0", 10.0), ("Worker_TP1", 10.2), True),
        (("Worker_TP0", 10.0), ("Worker_TP1", 12.0), False),
        (("Worker_PP0_TP0", 10.0), ("Worker_PP1_TP0", 14.0), True),
        (("Worker_PP0", 7.51), ("Worker_PP1", 9.51), True),
        (("Worker_DP0_TP0", 10.0), ("Worker_DP1_TP0", 10.0), True),
    ],
)
def test_ranks_of_one_stage_hold_the_same_weights(
    first: tuple[str, float], second: tuple[str, float], ok: bool
) -> None:
    """Stages of a pipeline hold different layers: they are not compared."""
    found = read(
        *(
            record(f"Model loading took {gib} GiB memory and 1.0 seconds", process=process, pid=pid)
            for pid, (process, gib) in enumerate((first, second))
        )
    )
    assert all(check.ok for check in found.checks) is ok


def test_ranks_on_different_devices_are_flagged() -> None:
    """A card of 80 GiB beside one of 40 GiB."""
    line = "Free memory on device ({free}/{total} GiB) on startup. Desired GPU memory utilization is (0.9, {ask} GiB)."
    found = read(
        record(line.format(free=78, total=79.19, ask=71.27), process="Worker_TP0", pid=1),
        record(line.format(free=38, total=39.49, ask=35.54), process="Worker_TP1", pid=2),
    )
    broken = {check.of for check in found.checks if not check.ok}
    assert broken == {"device_total_gib", "requested_gib"}


@pytest.mark.parametrize(
    ("version", "tokens", "ok"),
    [("0.27.1", "2,040,064", True), ("0.27.1", "2,080,064", False), ("0.20.1", "2,040,064", True)],
)
def test_tokens_are_concurrency_times_length_from_0_20_1(version: str, tokens: str, ok: bool) -> None:
    """996.125 x 2048, printed with two decimals."""
    found = read(
        server(version),
        record(f"GPU KV cache size: {tokens} tokens"),
        record("Maximum concurrency for 2,048 tokens per request: 996.12x"),
    )
    assert [check.ok for check in found.checks if check.name == "tokens_concurrency"] == [ok]


@pytest.mark.parametrize(
    ("blocks", "tokens", "ok"),
    [("29751", "476,016", True), ("1000", "2,656", True), ("29751", "475,000", False)],
    ids=["one group", "six layer groups", "neither"],
)
def test_tokens_are_blocks_times_block_size_until_0_20_0(blocks: str, tokens: str, ok: bool) -> None:
    """A hybrid model's layer groups share the blocks: 1000 // 6 x 16 = 2656."""
    found = read(
        server("0.11.0"),
        record("non-default args: {'block_size': 16}"),
        record(f"GPU KV cache size: {tokens} tokens"),
        record(f"Engine 000: vllm cache_config_info with initialization after num_gpu_blocks is: {blocks}"),
    )
    assert [check.ok for check in found.checks if check.name == "tokens_blocks"] == [ok]


@pytest.mark.parametrize(
    ("version", "engines", "page", "ok"),
    [
        ("0.27.1", 1, (29751, 16, 476016), {"metrics_blocks": True, "metrics_tokens": True}),
        ("0.27.1", 1, (29750, 16, 476000), {"metrics_blocks": False, "metrics_tokens": False}),
        ("0.27.1", 2, (59502, 16, 476016), {"metrics_blocks": True, "metrics_tokens": True}),
        ("0.11.0", 1, (29751, 16, None), {"metrics_blocks": True, "metrics_tokens": True}),
        ("0.11.0", 2, (59502, 16, None), {"metrics_blocks": True, "metrics_tokens": True}),
        ("0.11.0", 1, (29000, 16, None), {"metrics_blocks": False, "metrics_tokens": False}),
        ("0.27.1", 1, (29751, 16, None), {"metrics_blocks": True}),
        ("0.11.0", 1, (None, None, None), {}),
    ],
)
def test_the_log_is_compared_with_the_metrics_page(
    version: str, engines: int, page: tuple[int | None, int | None, int | None], ok: dict[str, bool]
) -> None:
    """The page sums the blocks of all engines; from 0.20.1 blocks x size is no token count any more."""
    found = read(
        server(version),
        record(f"non-default args: {{'data_parallel_size': {engines}}}"),
        record("Engine 000: vllm cache_config_info with initialization after num_gpu_blocks is: 29751"),
        record("GPU KV cache size: 476,016 tokens"),
    )
    blocks, size, tokens = page
    compared = against_metrics(found, num_gpu_blocks=blocks, block_size=size, kv_cache_size_tokens=tokens)
    assert {check.name: check.ok for check in compared} == ok


def test_tokens_times_bytes_per_token_are_the_kv_cache() -> None:
    """1,983,744 tokens x 2048 bytes = 3.78 GiB; with twice the bytes it is flagged."""
    found = read(record("Available KV cache memory: 3.78 GiB"), record("GPU KV cache size: 1,983,744 tokens"))
    assert [check.ok for check in bytes_per_token(found, 2048)] == [True]
    assert [check.ok for check in bytes_per_token(found, 4096)] == [False]
    assert bytes_per_token(read(record("Available KV cache memory: 3.78 GiB")), 2048) == []
