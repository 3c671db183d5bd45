"""What to change, computed from the numbers of the log where there are any."""

import pytest

from tests.unit.vllm_log.log_lines import failed, record

TOO_LONG = (
    "ValueError: To serve at least one request with the model's max seq len (32768), (7.81 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (4.45 GiB). Based on the available memory, the estimated "
    "maximum model length is {longest}. Try increasing `gpu_memory_utilization` or decreasing `max_model_len`."
)
UNESTIMATED = (
    "ValueError: To serve at least one request with the models's max seq len (32768), (7.81 GB KV cache is needed, "
    "which is larger than the available KV cache memory (4.45 GB). Try increasing `gpu_memory_utilization`."
)


def _error(words: str) -> str:
    return record(words, level="ERROR")


def _settings(**values: int) -> str:
    return record(f"non-default args: {values}")


@pytest.mark.parametrize(
    ("settings", "longest", "expected"),
    [
        ({"block_size": 128}, 18240, ("--max-model-len 18176 (142 blocks of 128) fits", "--tensor-parallel-size 2")),
        ({"block_size": 16}, 18176, ("--max-model-len 18176 (1136 blocks of 16) fits",)),
        ({}, 18240, ("--max-model-len 18240 fits",)),
        ({"tensor_parallel_size": 2}, 18240, ("--tensor-parallel-size 4",)),
    ],
)
def test_a_context_that_is_too_long_gets_the_longest_that_fits(
    settings: dict[str, int], longest: int, expected: tuple[str, ...]
) -> None:
    """Rounded down to whole blocks; with what is needed and what there is."""
    failure = failed(_settings(max_num_seqs=8, **settings), _error(TOO_LONG.replace("{longest}", str(longest))))
    assert failure.kind == "kv.context_too_long"
    for words in ("7.81 GiB", "4.45", *expected):
        assert words in (failure.remedy or "")
    assert failure.numbers["needed_gib"] == 7.81
    assert failure.numbers["available_gib"] == 4.45
    assert failure.numbers["max_model_len"] == 32768
    assert failure.numbers["estimated_max_model_len"] == longest


@pytest.mark.parametrize("block_size", [16, 128])
def test_no_length_is_promised_that_does_not_fit(block_size: int) -> None:
    """Less than one block is left: a length of 0 is no advice."""
    failure = failed(_settings(block_size=block_size), _error(TOO_LONG.replace("{longest}", "7")))
    assert "--max-model-len 0" not in (failure.remedy or "")


def test_without_an_estimate_the_advice_names_the_arguments() -> None:
    """0.8.4 to 0.9.0.1 lost the number; nothing is made up."""
    failure = failed(_error(UNESTIMATED))
    assert failure.kind == "kv.context_too_long"
    assert "--max-model-len" in (failure.remedy or "")
    assert not any(character.isdigit() for character in failure.remedy or "")
    assert "estimated_max_model_len" not in failure.numbers


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (
            "ValueError: User-specified max_model_len (65536) is greater than the derived max_model_len "
            "(max_position_embeddings=4096.0 or model_max_length=None in model's config.json).",
            "--max-model-len 4096",
        ),
        (
            "ValueError: Total number of attention heads (28) must be divisible by tensor parallel size (8).",
            "--tensor-parallel-size 7 divides the 28 attention heads",
        ),
        (
            "ValueError: Total number of attention heads (40) must be divisible by tensor parallel size (6).",
            "--tensor-parallel-size 5 divides the 40 attention heads",
        ),
        ("ValueError: World size (8) is larger than the number of available GPUs (2) in this node.", "8 devices"),
        (
            "ValueError: Free memory on device cuda:1 (60.87/79.19 GiB) on startup is less than desired GPU memory "
            "utilization (0.95, 75.23 GiB).",
            "--gpu-memory-utilization 0.76",
        ),
        ("RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests.",
         "--max-num-seqs"),
        ("vllm: error: unrecognized arguments: --foo", "argument"),
        ("OSError: You are trying to access a gated repo.", "token"),
    ],
)  # fmt: skip
def test_the_numbers_of_the_line_are_in_the_advice(words: str, remedy: str) -> None:
    """A share is rounded down: 60.87 / 79.19 = 0.7687, so 0.76 starts and 0.77 does not."""
    assert remedy in (failed(_error(words)).remedy or "")


def test_no_room_says_how_much_is_missing() -> None:
    """From the figure before the error, which itself carries none."""
    failure = failed(
        _settings(tensor_parallel_size=2),
        record("Available KV cache memory: -2.14 GiB"),
        _error("ValueError: No available memory for the cache blocks."),
    )
    assert "2.14 GiB" in (failure.remedy or "")
    assert "--tensor-parallel-size 4" in (failure.remedy or "")
    assert failure.numbers["available_kv_gib"] == -2.14


def test_a_cause_that_nobody_knows_gets_no_advice() -> None:
    """Better none than a wrong one."""
    assert failed(_error("KeyError: 'rope_type'")).remedy is None


def test_an_absurd_number_gives_the_general_advice() -> None:
    """A damaged line says anything."""
    failure = failed(
        _error(
            "ValueError: Total number of attention heads (99999999999) must be divisible by tensor parallel size (8)."
        )
    )
    assert failure.kind == "config.parallelism"
    assert "99999999999" not in (failure.remedy or "")
