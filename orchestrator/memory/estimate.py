"""The whole budget of one rank: what vLLM would measure, computed."""

import math
from dataclasses import dataclass

from packaging.version import Version

from orchestrator.memory.activation import activation_bytes
from orchestrator.memory.kv_cache import KvCacheLayout, KvCachePlan, kv_cache_layout, kv_cache_plan
from orchestrator.memory.runtime import CONTEXT_GIB, GIB, cuda_graph_bytes, non_torch_bytes
from orchestrator.memory.weights import weight_bytes
from orchestrator.vllm.devices import Device
from orchestrator.vllm.model_config import ModelConfig
from orchestrator.vllm.settings import EngineSettings
from orchestrator.vllm.version import at_least


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Predicted memory of the fullest rank, in bytes; `kv_cache_bytes` may be negative when nothing is left."""

    device_total_bytes: int
    device_free_bytes: int
    requested_bytes: int
    weight_bytes: int
    activation_bytes: int
    non_torch_bytes: int
    cuda_graph_bytes: int
    graph_in_budget: bool
    kv_cache_bytes: int
    layout: KvCacheLayout
    plan: KvCachePlan


def estimate(
    model: ModelConfig, settings: EngineSettings, device: Device, version: Version, *, busy_bytes: int = 0
) -> MemoryEstimate:
    """Compute the budget: utilization x total = weights + activation + non-torch (+ graphs from 0.20.0) + KV.

    `busy_bytes` is what other processes hold on the device.
    """
    total = round(device.total_gib * GIB)
    requested = math.ceil(total * settings.gpu_memory_utilization)
    weights = weight_bytes(model, settings)
    activation = activation_bytes(model, settings, version)
    non_torch = non_torch_bytes(settings, version)
    graphs = cuda_graph_bytes(model, settings)
    graph_in_budget = at_least(version, "0.20.0")
    kv = requested - weights - activation - non_torch - (graphs if graph_in_budget else 0)
    if settings.kv_cache_memory_bytes is not None:
        kv = settings.kv_cache_memory_bytes
    layout = kv_cache_layout(model, settings)
    return MemoryEstimate(
        device_total_bytes=total,
        device_free_bytes=total - round(CONTEXT_GIB * GIB) - busy_bytes,
        requested_bytes=requested,
        weight_bytes=weights,
        activation_bytes=activation,
        non_torch_bytes=non_torch,
        cuda_graph_bytes=graphs,
        graph_in_budget=graph_in_budget,
        kv_cache_bytes=kv,
        layout=layout,
        plan=kv_cache_plan(kv, layout, settings, version),
    )
