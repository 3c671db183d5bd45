"""Weights of one rank, in bytes, from a model's shape."""

from orchestrator.vllm.model_config import ModelConfig
from orchestrator.vllm.settings import EngineSettings

FP8_METHODS = frozenset({"fp8", "compressed-tensors", "modelopt"})
INT4_METHODS = frozenset({"awq", "awq_marlin", "gptq", "gptq_marlin"})
MXFP4_BYTES = 4.25 / 8  # 4 bits and one shared 8-bit exponent for 32 elements
INT4_BYTES = 4.5 / 8  # 4 bits, a 16-bit scale and a packed zero point for 128 elements
MXFP4_PADDING = 256  # Hopper kernels pad one dimension of each expert to a multiple of this


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def linear_bytes(quantization: str | None, dtype_bytes: int) -> float:
    """Return bytes per element of a quantised linear layer."""
    if quantization in FP8_METHODS:
        return 1.0
    if quantization in INT4_METHODS:
        return INT4_BYTES
    return float(dtype_bytes)


def _attention_elements(model: ModelConfig) -> int:
    if model.mla is not None:
        mla = model.mla
        query_dim = model.attention_heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
        query = (
            model.hidden_size * query_dim
            if mla.q_lora_rank is None
            else model.hidden_size * mla.q_lora_rank + mla.q_lora_rank * query_dim
        )
        down = model.hidden_size * (mla.kv_lora_rank + mla.qk_rope_head_dim)
        up = mla.kv_lora_rank * model.attention_heads * (mla.qk_nope_head_dim + mla.v_head_dim)
        out = model.attention_heads * mla.v_head_dim * model.hidden_size
        return query + down + up + out
    width = model.head_dim * (2 * model.attention_heads + 2 * model.kv_heads)
    return model.hidden_size * width


def _layers_bytes(model: ModelConfig, settings: EngineSettings) -> float:
    linear = linear_bytes(settings.quantization, settings.dtype_bytes)
    # MXFP4 quantises the experts alone; attention keeps the model's dtype.
    attention_bytes = settings.dtype_bytes if settings.quantization == "mxfp4" else linear
    total = model.layers * _attention_elements(model) * attention_bytes
    dense_mlp = 3 * model.hidden_size * model.intermediate_size
    if model.moe is None:
        return total + model.layers * dense_mlp * linear
    moe = model.moe
    width = moe.intermediate_size
    expert_bytes = linear
    if settings.quantization == "mxfp4":
        width, expert_bytes = _round_up(width, MXFP4_PADDING), MXFP4_BYTES
    moe_layers = model.layers - moe.dense_layers
    expert = 3 * model.hidden_size * width * expert_bytes
    router = model.hidden_size * moe.experts * settings.dtype_bytes
    total += moe.dense_layers * dense_mlp * linear
    return total + moe_layers * ((moe.experts + moe.shared_experts) * expert + router)


def _vision_bytes(model: ModelConfig, dtype_bytes: int) -> int:
    if model.vision is None:
        return 0
    vision = model.vision
    matrices = 3 if vision.gated else 2
    layer = 4 * vision.hidden_size**2 + matrices * vision.hidden_size * vision.intermediate_size
    projector = 6 * vision.hidden_size * model.hidden_size
    return (vision.layers * layer + projector) * dtype_bytes


def weight_bytes(model: ModelConfig, settings: EngineSettings) -> int:
    """Return the weights of the fullest rank in bytes: linear layers and embeddings are split by tensor parallel
    size, layers by pipeline parallel size; norms are copied to every rank.
    """
    tensor, pipeline = settings.tensor_parallel_size, settings.pipeline_parallel_size
    tables = 1 if model.tied_embeddings or pipeline > 1 else 2
    embedding = tables * model.vocab_size * model.hidden_size * settings.dtype_bytes
    norms = (2 * model.layers + 1) * model.hidden_size * settings.dtype_bytes / pipeline
    split = _layers_bytes(model, settings) / pipeline + embedding + _vision_bytes(model, settings.dtype_bytes)
    return round(split / tensor + norms)
