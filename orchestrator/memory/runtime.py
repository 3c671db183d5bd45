"""Memory of the runtime itself: contexts, communication buffers and CUDA graphs.

Constants were fitted to breakdown lines of real H100 start-ups and are stated per version range.
"""

from packaging.version import Version

from orchestrator.vllm.model_config import ModelConfig
from orchestrator.vllm.settings import EngineSettings
from orchestrator.vllm.version import at_least

GIB = 2**30
CONTEXT_GIB = 0.51  # used on an idle device once the process has its context
GRAPH_BASE_GIB = 0.25
GRAPH_GIB_PER_LAYER = 0.0165
GRAPH_MOE_FACTOR = 2.5


def non_torch_bytes(settings: EngineSettings, version: Version) -> int:
    """Return memory outside torch that appears between worker start and profiling, per rank, in bytes."""
    if at_least(version, "0.12.0"):
        gib = 0.25 if settings.tensor_parallel_size == 1 else 2.1
    else:
        gib = 0.13 if settings.tensor_parallel_size == 1 else 0.55
    return round(gib * GIB)


def cuda_graph_bytes(model: ModelConfig, settings: EngineSettings) -> int:
    """Return memory taken by CUDA graph capture, per rank, in bytes; 0 under `--enforce-eager`."""
    if settings.enforce_eager:
        return 0
    layers = -(-model.layers // settings.pipeline_parallel_size)
    factor = GRAPH_MOE_FACTOR if model.moe is not None else 1.0
    return round((GRAPH_BASE_GIB + GRAPH_GIB_PER_LAYER * layers * factor) * GIB)
