"""Lines that look like memory figures and that nobody understood: what a new release prints differently."""

import pytest

from orchestrator.vllm_log import unread_lines
from tests.unit.vllm_log.log_lines import record, text

NEW = "Memory for the frobnicator: {} GiB"


def _unread(*lines: str) -> list[tuple[int, int]]:
    return [(one.line_number, one.count) for one in unread_lines(text(*lines))]


@pytest.mark.parametrize("size", ["1.50 GiB", "1.50GiB", "12 MiB", "7 GB", "1,024 KiB", "123456789 bytes", "2 TiB"])
@pytest.mark.parametrize("prefix", ["", "vllm-1  | ", "[pod/a/b] "])
def test_a_new_wording_with_a_size_is_listed(size: str, prefix: str) -> None:
    """In any unit, behind any prefix, with the number of its line."""
    assert _unread("noise", prefix + record(f"Memory for the frobnicator: {size}")) == [(2, 1)]


@pytest.mark.parametrize(
    "line",
    [
        record("Model loading took 14.99 GiB memory and 7.0 seconds"),
        record("Available KV cache memory: -0.1 GiB"),
        record("ValueError: No available memory for the cache blocks.", level="ERROR"),
        record("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB.", level="ERROR"),
        '    f"Failed: {size / 2**30:.2f} GiB of 80 GiB"',
        "torch_memory before profiling is 10.25 G",
        "model.safetensors: 100%|██████████| 4.99G/4.99G [00:10<00:00, 480MB/s]",
        record("Free memory grew by 0.5 GiB during profiling (initial 1.0 GiB, current 1.5 GiB)."),
        record("Avg prompt throughput: 12.0 tokens/s, GPU KV cache usage: 3.1%"),
        record("no size here"),
    ],
)
def test_what_is_understood_or_no_size_is_not_listed(line: str) -> None:
    """Known figures, known failures, quoted source, download bars."""
    assert _unread(line) == []


def test_lines_of_one_shape_are_listed_once_and_counted() -> None:
    """A thousand ranks print the same line with other figures."""
    assert _unread(*(record(NEW.format(value), pid=value) for value in range(1, 6)), record("Other: 2 GiB")) == [
        (1, 5), (6, 1),
    ]  # fmt: skip


def test_secrets_are_taken_out() -> None:
    """An unknown line may hold anything."""
    (found,) = unread_lines(text(record("api_key='S3cr3tV4lue0123' uses 2 GiB")))
    assert "S3cr3tV4lue0123" not in found.line


def test_only_the_unknown_one_of_glued_records_is_listed() -> None:
    """Two records share a line: one is known."""
    (found,) = unread_lines(text(record("Available KV cache memory: 1.0 GiB") + record(NEW.format(2))))
    assert found.count == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_windows_file_is_searched_too(encoding: str) -> None:
    """An empty answer would say that all was understood."""
    raw = text("noise", record(NEW.format(1))).decode().replace("\n", "\r\n").encode(encoding)
    assert [one.line_number for one in unread_lines(raw)] == [2]


def test_a_binary_file_and_an_endless_line_do_no_harm() -> None:
    """Bounded, whatever comes."""
    assert unread_lines(bytes(range(256)) * 100) == []
    (found,) = unread_lines(text("x" * 3_000_000 + " 5 GiB"))
    assert len(found.line) < 10_000
