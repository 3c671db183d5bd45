"""KV-cache figures are read from the text a real server answers on /metrics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.vllm.metrics import read_metrics

# In the form of vLLM 0.32 on CPU, tensor parallel size 2.
NEW = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 1.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.08183079056865464
# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 7.0
vllm:generation_tokens_created{engine="0",model_name="m"} 1.795230506630189e+09
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="128",enable_prefix_caching="True",engine="0",gpu_memory_utilization="0.15",\
kv_cache_size_tokens="184832",num_cpu_blocks="None",num_gpu_blocks="1443",sliding_window="None"} 1.0
"""


def test_every_figure_of_a_current_server_is_read() -> None:
    """Usage is a ratio of (blocks - 1), one block being the null block: 118 of 1442."""
    found = read_metrics(NEW)
    assert found is not None
    assert (found.num_gpu_blocks, found.block_size, found.kv_cache_size_tokens) == (1443, 128, 184832)
    assert (found.gpu_memory_utilization, found.enable_prefix_caching) == (0.15, True)
    assert (found.requests_running, found.generation_tokens) == (1, 7)
    assert found.usage_ratio == pytest.approx(0.0818308)
    assert found.used_blocks() == 118


def test_the_older_name_of_the_usage_is_read_too() -> None:
    """Until 0.11.2 the same ratio was called gpu_cache_usage_perc."""
    found = read_metrics('# TYPE vllm:gpu_cache_usage_perc gauge\nvllm:gpu_cache_usage_perc{model_name="m"} 0.25\n')
    assert found is not None
    assert found.usage_ratio == 0.25
    assert found.used_blocks() is None


def test_a_ratio_that_is_no_whole_number_of_blocks_is_not_rounded() -> None:
    """Using all blocks as the divisor would be seen."""
    found = read_metrics(NEW.replace("0.08183079056865464", repr(118 / 1443)))
    assert found is not None
    assert found.used_blocks() is None


def test_what_the_server_does_not_know_is_unknown() -> None:
    """The text `None` in a label is not 0."""
    found = read_metrics(NEW.replace('"1443"', '"None"').replace('"184832"', '"None"').replace('"0.15"', '"?"'))
    assert found is not None
    assert found.num_gpu_blocks is None
    assert found.kv_cache_size_tokens is None
    assert found.gpu_memory_utilization is None


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html><body>502 Bad Gateway</body></html>",
        '{"error": "not found"}',
        "python_info 1.0\n",
        'vllm:kv_cache_usage_perc{engine="0" 0.1\n',
        "vllm:kv_cache_usage_perc abc\n",
        'vllm:cache_config_info{num_gpu_blocks="1\n',
    ],
)
def test_a_body_that_is_no_vllm_metrics_page_gives_nothing(body: str) -> None:
    """A proxy's error page is not a measurement."""
    assert read_metrics(body) is None


@pytest.mark.parametrize("usage", ["NaN", "+Inf", "-Inf", "1e400"])
def test_a_usage_that_is_no_number_is_not_counted_in_blocks(usage: str) -> None:
    """A server that answers NaN gives no block count, and no traceback."""
    found = read_metrics(NEW.replace("0.08183079056865464", usage))
    assert found is None or found.used_blocks() is None


@pytest.mark.parametrize("label", ["²", "٣", "9" * 5000])
def test_a_block_count_in_odd_digits_does_no_harm(label: str) -> None:
    """Labels are foreign text."""
    found = read_metrics(NEW.replace('"1443"', f'"{label}"'))
    assert found is None or isinstance(found.num_gpu_blocks, int | None)


PIECES = st.sampled_from(
    ["vllm:", "kv_cache_usage_perc", "cache_config_info", "num_requests_running", "{", "}", '"', "=", ",", " ", "\n",
     "# TYPE ", "# HELP ", "gauge", "counter", "histogram", "NaN", "1.0", "-", "engine", 'num_gpu_blocks="²"', "\\",
     "generation_tokens_total", "1e999", "\x00", " 1 1 1", "_bucket", 'le="x"']
)  # fmt: skip


@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=30).map("".join)))
def test_no_body_makes_reading_fail(body: str) -> None:
    """Random text gives figures or nothing, never an exception."""
    found = read_metrics(body)
    assert found is None or found.used_blocks() is None or (found.used_blocks() or 0) >= -1e18


@given(st.lists(PIECES, max_size=10).map("".join), st.integers(0, 2000))
def test_a_damaged_page_does_not_make_reading_fail(noise: str, place: int) -> None:
    """A page that was cut or overwritten somewhere is read or refused."""
    damaged = NEW[:place] + noise + NEW[place + len(noise) :]
    read_metrics(damaged)
