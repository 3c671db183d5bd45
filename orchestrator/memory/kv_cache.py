"""The KV cache of one rank: pages, blocks, tokens and how many requests they hold."""

from dataclasses import dataclass

from packaging.version import Version

from orchestrator.vllm.model_config import ModelConfig
from orchestrator.vllm.settings import EngineSettings
from orchestrator.vllm.version import at_least


@dataclass(frozen=True, slots=True)
class KvCacheLayout:
    """How one rank pages its KV cache.

    `page_bytes` is one block of one layer; a hybrid model has `groups` of `layers_per_group` layers that share
    the pool; `block_size` is tokens per block.
    """

    page_bytes: int
    layers_per_group: int
    full_groups: int
    sliding_groups: int
    block_size: int
    sliding_window: int | None

    @property
    def groups(self) -> int:
        """Return the number of layer groups that draw blocks from one pool."""
        return self.full_groups + self.sliding_groups

    @property
    def block_bytes(self) -> int:
        """Return the bytes of one pool block over the layers of a group."""
        return self.page_bytes * self.layers_per_group

    def blocks_for_request(self, tokens: int, max_num_batched_tokens: int) -> int:
        """Return the pool blocks that one request of `tokens` tokens holds at most."""
        full = -(-tokens // self.block_size)
        if self.sliding_window is None:
            return full * self.full_groups
        held = min(self.sliding_window - 1 + max_num_batched_tokens, tokens)
        sliding = min(-(-held // self.block_size) + 1, full)
        return full * self.full_groups + sliding * self.sliding_groups


@dataclass(frozen=True, slots=True)
class KvCachePlan:
    """The KV cache that fits: `num_blocks` includes the null block, `tokens` is what vLLM prints."""

    num_blocks: int
    tokens: int
    max_concurrency: float


def kv_bytes_per_token(model: ModelConfig, settings: EngineSettings) -> int:
    """Return bytes per token of one rank over its layers: layers x 2 x KV heads x head size x element size.

    Multi-head latent attention keeps one latent vector and is not split by tensor parallel size.
    """
    layers = -(-model.layers // settings.pipeline_parallel_size)
    return layers * _page_elements(model, settings) * settings.kv_cache_dtype_bytes


def _page_elements(model: ModelConfig, settings: EngineSettings) -> int:
    if model.mla is not None:
        return model.mla.kv_lora_rank + model.mla.qk_rope_head_dim
    heads = max(1, model.kv_heads // settings.tensor_parallel_size)
    return 2 * heads * model.head_dim


def kv_cache_layout(model: ModelConfig, settings: EngineSettings) -> KvCacheLayout:
    """Return how the KV cache of one rank is paged."""
    layers = -(-model.layers // settings.pipeline_parallel_size)
    page = settings.block_size * _page_elements(model, settings) * settings.kv_cache_dtype_bytes
    if not model.sliding_layers:
        return KvCacheLayout(page, layers, 1, 0, settings.block_size, None)
    sliding = round(model.sliding_layers * layers / model.layers)
    full = layers - sliding
    group = max(1, min(full, sliding))
    return KvCacheLayout(
        page, group, -(-full // group), -(-sliding // group), settings.block_size, model.sliding_window
    )


def kv_cache_plan(
    available_bytes: int, layout: KvCacheLayout, settings: EngineSettings, version: Version
) -> KvCachePlan:
    """Return what `available_bytes` of one rank hold; tokens follow the meaning of the version.

    Until 0.20.0 tokens = blocks // groups x block size; from 0.20.1 tokens = concurrency x max_model_len.
    """
    blocks = max(0, available_bytes) // layout.block_bytes
    if settings.num_gpu_blocks_override is not None:
        blocks = settings.num_gpu_blocks_override
    needed = layout.blocks_for_request(settings.max_model_len, settings.max_num_batched_tokens)
    concurrency = blocks / needed if needed else 0.0
    tokens = blocks // layout.groups * layout.block_size
    if at_least(version, "0.20.1"):
        tokens = int(concurrency * settings.max_model_len)
    return KvCachePlan(num_blocks=blocks, tokens=tokens, max_concurrency=concurrency)


def longest_model_len(available_bytes: int, layout: KvCacheLayout, settings: EngineSettings) -> int:
    """Return the largest `--max-model-len` of which one request fits into `available_bytes`, 0 if none does."""
    blocks = max(0, available_bytes) // layout.block_bytes
    low, high = 0, settings.max_model_len
    while low < high:
        middle = (low + high + 1) // 2
        if layout.blocks_for_request(middle, settings.max_num_batched_tokens) <= blocks:
            low = middle
        else:
            high = middle - 1
    return low
