"""`/metrics` of the simulated release: names and labels that changed over the versions, and true values."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from packaging.version import Version
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from orchestrator.simulator.engine import Engine
from orchestrator.simulator.requests import Finish
from orchestrator.vllm.version import at_least


@dataclass(frozen=True, slots=True)
class CacheFacts:
    """What `vllm:cache_config_info` says; blocks are summed over engines, tokens are of one engine."""

    block_size: int
    cache_dtype: str
    enable_prefix_caching: bool
    gpu_memory_utilization: float
    num_gpu_blocks: int
    num_gpu_blocks_override: int | None
    kv_cache_memory_bytes: int | None
    tokens: int
    max_concurrency: float
    sliding_window: int | None


def cache_labels(facts: CacheFacts, version: Version) -> dict[str, str]:
    """Return the labels of `vllm:cache_config_info` in the release."""
    # Until 0.8.5 the metric was made before the engine had reported its blocks.
    blocks = str(facts.num_gpu_blocks) if at_least(version, "0.9.0") else "None"
    labels = {
        "block_size": str(facts.block_size),
        "cache_dtype": facts.cache_dtype,
        "enable_prefix_caching": str(facts.enable_prefix_caching),
        "gpu_memory_utilization": str(facts.gpu_memory_utilization),
        "is_attention_free": "False",
        "num_cpu_blocks": "None",
        "num_gpu_blocks": blocks,
        "num_gpu_blocks_override": str(facts.num_gpu_blocks_override),
        "prefix_caching_hash_algo": "sha256" if at_least(version, "0.10.2") else "builtin",
        "sliding_window": str(facts.sliding_window),
    }
    if not at_least(version, "0.28.0"):
        labels["calculate_kv_scales"] = "False"
    if not at_least(version, "0.18.0"):
        labels |= {"cpu_offload_gb": "0", "swap_space": "4"}
    if at_least(version, "0.10.2"):
        labels["kv_cache_memory_bytes"] = str(facts.kv_cache_memory_bytes)
        labels |= {"mamba_block_size": "None", "mamba_cache_dtype": "auto", "mamba_ssm_cache_dtype": "auto"}
    if at_least(version, "0.11.1"):
        labels |= {"kv_offloading_backend": "native", "kv_offloading_size": "None"}
    if at_least(version, "0.24.0"):
        labels["kv_cache_size_tokens"] = str(facts.tokens)
        labels["kv_cache_max_concurrency"] = str(facts.max_concurrency)
    return labels


def usage_ratio(engine: Engine, version: Version) -> float:
    """Return the share of used blocks, 0 to 1; from 0.10.2 the null block no longer counts."""
    pool = engine.pool
    if not at_least(version, "0.10.2"):
        return 1 - pool.free_blocks / pool.num_blocks
    usable = pool.num_blocks - 1
    return 1 - pool.free_blocks / usable if usable else 0.0


class EngineCollector(Collector):
    """Reads the engines at the moment of the scrape."""

    def __init__(self, engines: Sequence[Engine], facts: CacheFacts, model_name: str, version: Version) -> None:
        self._engines = engines
        self._facts = facts
        self._model_name = model_name
        self._version = version

    def collect(self) -> Iterable[Metric]:
        """Yield the metric families of the release."""
        yield from self._gauges()
        yield from self._counters()
        labels = cache_labels(self._facts, self._version) | {"engine": "0"}
        info = GaugeMetricFamily(
            "vllm:cache_config_info", "Information of the LLMEngine CacheConfig", labels=list(labels)
        )
        info.add_metric(list(labels.values()), 1.0)
        yield info

    def _gauges(self) -> Iterator[Metric]:
        usage = "KV-cache usage. 1 means 100 percent usage."
        gauges = [
            ("num_requests_running", "Number of requests in model execution batches.", _running),
            ("num_requests_waiting", "Number of requests waiting to be processed.", _waiting),
        ]
        for name, text, value in gauges:
            family = GaugeMetricFamily(f"vllm:{name}", text, labels=["model_name", "engine"])
            for index, engine in enumerate(self._engines):
                family.add_metric([self._model_name, str(index)], value(engine))
            yield family
        names = ["kv_cache_usage_perc"] if at_least(self._version, "0.9.2") else []
        if not at_least(self._version, "0.10.0"):
            names.append("gpu_cache_usage_perc")
        for name in names:
            family = GaugeMetricFamily(f"vllm:{name}", usage, labels=["model_name", "engine"])
            for index, engine in enumerate(self._engines):
                family.add_metric([self._model_name, str(index)], usage_ratio(engine, self._version))
            yield family

    def _counters(self) -> Iterator[Metric]:
        prefix = "prefix_cache" if at_least(self._version, "0.9.2") else "gpu_prefix_cache"
        counters = [
            ("prompt_tokens", "Number of prefill tokens processed.", "prompt_tokens"),
            ("generation_tokens", "Number of generation tokens processed.", "generation_tokens"),
            (f"{prefix}_queries", "Prefix cache queries, in terms of number of queried tokens.", "prefix_queries"),
            (f"{prefix}_hits", "Prefix cache hits, in terms of number of cached tokens.", "prefix_hits"),
            ("num_preemptions", "Cumulative number of preemption from the engine.", "preemptions"),
        ]
        for name, text, attribute in counters:
            family = CounterMetricFamily(f"vllm:{name}", text, labels=["model_name", "engine"])
            for index, engine in enumerate(self._engines):
                family.add_metric([self._model_name, str(index)], float(getattr(engine.counters, attribute)))
            yield family
        success = CounterMetricFamily(
            "vllm:request_success",
            "Count of successfully processed requests.",
            labels=["model_name", "engine", "finished_reason"],
        )
        for index, engine in enumerate(self._engines):
            for reason in Finish:
                count = float(engine.counters.finished[reason])
                success.add_metric([self._model_name, str(index), reason.value], count)
        yield success


def _running(engine: Engine) -> float:
    return float(len(engine.running))


def _waiting(engine: Engine) -> float:
    return float(len(engine.waiting))


def exposition(collector: Collector) -> bytes:
    """Return the text of a scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)
