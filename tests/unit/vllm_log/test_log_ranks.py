"""Which rank a figure or a failure belongs to, and how ranks are reduced to one figure."""

import pytest

from tests.unit.vllm_log.log_lines import failed, read, record

WEIGHTS = "Model loading took {} GiB memory and 1.000000 seconds"


def _weights(gib: float, process: str, pid: int) -> str:
    return record(WEIGHTS.format(gib), process=process, pid=pid)


@pytest.mark.parametrize(
    ("processes", "ranks"),
    [
        (("Worker_TP0", "Worker_TP1"), ["TP0", "TP1"]),
        (("VllmWorker rank=0", "VllmWorker rank=1"), ["TP0", "TP1"]),
        (("VllmWorker TP0", "VllmWorker TP1"), ["TP0", "TP1"]),
        (("Worker_PP0", "Worker_PP1"), ["PP0", "PP1"]),
        (("Worker_PP0_TP1", "Worker_PP1_TP0"), ["PP0_TP1", "PP1_TP0"]),
        (("Worker_DP0_TP1", "Worker_DP1_TP0"), ["DP0_TP1", "DP1_TP0"]),
        (("Worker_DP1_PP0_TP1_EP3", "Worker_DP0_PP1_TP0_EP0"), ["DP0_PP1_TP0", "DP1_PP0_TP1"]),
        (("Worker_PP1_PCP0_TP1_DCP1_EP1", "Worker_PP0_PCP0_TP0_DCP0_EP0"), ["PP0_PCP0_TP0", "PP1_PCP0_TP1"]),
        (("Worker_TP11", "Worker_TP2"), ["TP11", "TP2"]),
        (("EngineCore_DP0", "EngineCore_DP1"), ["DP0_TP0", "DP1_TP0"]),
        (("EngineCore_DP0",), ["TP0"]),
        (("EngineCore",), ["TP0"]),
    ],
)
def test_a_process_name_tells_the_rank(processes: tuple[str, ...], ranks: list[str]) -> None:
    """Names of every version; `EngineCore_DP0` alone is printed without data parallelism too."""
    lines = [_weights(10.0 + pid, process, pid) for pid, process in enumerate(processes)]
    assert sorted(read(*lines).ranks) == ranks


@pytest.mark.parametrize("tail", ["", ", EP rank 1", ", EP rank N/A, EPLB rank N/A"])
@pytest.mark.parametrize(
    ("assigned", "rank"),
    [
        ("DP rank 0, PP rank 0, TP rank 1", "TP1"),
        ("DP rank 0, PP rank 1, TP rank 0", "PP1_TP0"),
        ("DP rank 1, PP rank 0, TP rank 1", "DP1_TP1"),
        ("DP rank 0, PP rank 1, PCP rank 0, TP rank 1", "PP1_TP1"),
    ],
)
def test_an_assignment_tells_the_rank_of_a_nameless_worker(assigned: str, rank: str, tail: str) -> None:
    """`Worker` says nothing; the line of the process group does."""
    told = record(f"rank 1 in world size 4 is assigned as {assigned}{tail}", process="Worker", pid=5)
    assert list(read(told, _weights(9.0, "Worker", 5)).ranks) == [rank]


def test_a_global_rank_tells_the_rank_of_a_nameless_worker() -> None:
    """Tensor ranks follow each other inside a pipeline stage."""
    config = record("Initializing a V1 LLM engine (v0.19.0) with config: model='m', tensor_parallel_size=2, "
                    "pipeline_parallel_size=2, dtype=torch.bfloat16")  # fmt: skip
    lines = [config]
    for rank in range(4):
        init = f"world_size=4 rank={rank} local_rank={rank} distributed_init_method=tcp://127.0.0.1:1 backend=nccl"
        lines += [record(init, process="Worker", pid=10 + rank), _weights(10.0 + rank, "Worker", 10 + rank)]
    found = {rank: facts["weights_gib"] for rank, facts in read(*lines).ranks.items()}
    assert found == {"PP0_TP0": 10.0, "PP0_TP1": 11.0, "PP1_TP0": 12.0, "PP1_TP1": 13.0}


def test_a_global_rank_without_sizes_is_a_tensor_rank() -> None:
    """Two devices and nothing else said: tensor parallelism."""
    init = "world_size=2 rank={0} local_rank={0} distributed_init_method=tcp://127.0.0.1:1 backend=nccl"
    lines = [record(init.format(rank), process="Worker", pid=rank + 5) for rank in (1, 0)]
    found = read(*lines, _weights(10.0, "Worker", 6), _weights(11.0, "Worker", 5))
    assert {rank: facts["weights_gib"] for rank, facts in found.ranks.items()} == {"TP1": 10.0, "TP0": 11.0}


def test_the_driver_of_v0_has_no_prefix_and_is_the_first_rank() -> None:
    """Its workers are `VllmWorkerProcess`; they take the ranks that are left, in the order in which they appear."""
    head = "INFO 01-02 03:04:05 model_runner.py:1115] Loading model weights took {} GB"
    found = read(
        "(VllmWorkerProcess pid=21) " + head.format("11.0000"),
        head.format("10.0000"),
        "(VllmWorkerProcess pid=22) " + head.format("12.0000"),
    )
    assert {rank: facts["weights_gib"] for rank, facts in found.ranks.items()} == {"TP0": 10, "TP1": 11, "TP2": 12}


def test_a_process_that_changes_its_name_stays_one_rank() -> None:
    """`VllmWorker-0` becomes `Worker_TP1` once the process groups exist."""
    found = read(
        _weights(10.0, "VllmWorker-0", 7),
        record("Available KV cache memory: 5.00 GiB", process="Worker_TP1", pid=7),
    )
    assert found.ranks == {"TP1": {"weights_gib": 10.0, "model_load_seconds": 1.0, "kv_cache_gib": 5.0}}


USED = {
    "weights_gib": "Loading model weights took {} GB",
    "activation_gib": "torch peak memory increase: {}GiB; x",
    "non_torch_gib": "non-torch forward increase memory: {}GiB; x",
    "cuda_graph_gib": "Graph capturing finished in 5 secs, took {} GiB",
    "cuda_graph_estimated_gib": "Estimated CUDA graph memory: {} GiB total",
    "model_load_seconds": "Model loading took 1.0 GiB memory and {} seconds",
}
LEFT = {
    "kv_cache_gib": "Available KV cache memory: {} GiB",
    "kv_cache_tokens": "GPU KV cache size: {} tokens",
    "kv_cache_blocks": "# GPU blocks: {}",
    "max_concurrency": "Maximum concurrency for 16 tokens per request: {}x",
    "device_free_gib": "Free memory on device ({}/99 GiB) on startup. Desired",
    "device_total_gib": "Free memory on device (1/{} GiB) on startup. Desired",
}


@pytest.mark.parametrize("fact", [*USED, *LEFT])
@pytest.mark.parametrize("values", [(3, 7), (7, 3)])
def test_what_is_used_is_the_largest_and_what_is_left_the_smallest(fact: str, values: tuple[int, int]) -> None:
    """Every rank must fit, and the engine runs with what the poorest has; the order of the lines does not matter."""
    line = {**USED, **LEFT}[fact]
    found = read(*(record(line.format(value), process=f"Worker_TP{n}", pid=n) for n, value in enumerate(values)))
    chosen = max(values) if fact in USED else min(values)
    assert found.facts[fact] == chosen
    assert found.evidence[fact].line_number == values.index(chosen) + 1


BUSY = (
    "ValueError: Free memory on device{} (60.87/79.19 GiB) on startup is less than desired GPU memory utilization "
    "(0.95, 75.23 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)
TP2 = record("non-default args: {'model': 'm', 'tensor_parallel_size': 2}", process="APIServer", pid=9)


@pytest.mark.parametrize(
    ("lines", "rank"),
    [
        pytest.param((record(BUSY.format(""), process="Worker_TP1", pid=4, level="ERROR"),), "TP1", id="named"),
        pytest.param((TP2, record(BUSY.format(" cuda:1"), process="Worker", pid=4, level="ERROR")), "TP1", id="device"),
        pytest.param((TP2, record(BUSY.format(" npu:1"), process="Worker", pid=4, level="ERROR")), "TP1", id="NPU"),
        pytest.param((record(BUSY.format(" cuda:1"), process="Worker", pid=4, level="ERROR"),), None, id="no size"),
        pytest.param(
            (TP2, record(BUSY.format(" cuda:5"), process="Worker", pid=4, level="ERROR")), None, id="not ours"
        ),
        pytest.param(
            (
                record(
                    "rank 1 in world size 2 is assigned as DP rank 0, PP rank 0, TP rank 1", process="Worker", pid=4
                ),
                record(BUSY.format(""), process="Worker", pid=4, level="ERROR"),
            ),
            "TP1",
            id="assigned",
        ),
        pytest.param(
            (
                record(BUSY.format(""), process="VllmWorker-1", pid=4, level="ERROR"),
                record("shutting down", process="Worker_TP1", pid=4),
            ),
            "TP1",
            id="name of a spawned worker",
        ),
    ],
)
def test_a_failure_names_its_rank_where_the_log_does(lines: tuple[str, ...], rank: str | None) -> None:
    """By its process, its assignment, or the index of its device on one node; otherwise it is unknown."""
    failure = failed(*lines)
    assert (failure.kind, failure.rank) == ("gpu.busy", rank)
