"""A model's shape, read from its Hugging Face `config.json` or from the shapes that ship with kprof."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from orchestrator.errors import UsageError

_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class MoeShape:
    """Experts of a mixture-of-experts model; `dense_layers` come first and have a plain MLP."""

    experts: int
    shared_experts: int
    intermediate_size: int
    dense_layers: int


@dataclass(frozen=True, slots=True)
class MlaShape:
    """Multi-head latent attention: ranks and head sizes in elements."""

    kv_lora_rank: int
    q_lora_rank: int | None
    qk_rope_head_dim: int
    qk_nope_head_dim: int
    v_head_dim: int


@dataclass(frozen=True, slots=True)
class VisionShape:
    """A vision tower of plain transformer layers with a gated or plain MLP."""

    hidden_size: int
    intermediate_size: int
    layers: int
    gated: bool


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What the memory model needs of one model; sizes are elements, `dtype_bytes` is per element."""

    name: str
    architecture: str
    hidden_size: int
    layers: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tied_embeddings: bool
    max_position_embeddings: int
    dtype_bytes: int
    quantization: str | None
    sliding_window: int | None
    sliding_layers: int
    moe: MoeShape | None
    mla: MlaShape | None
    vision: VisionShape | None


def parse_model_config(raw: Mapping[str, Any], name: str) -> ModelConfig:
    """Read a `config.json`; raises UsageError naming the field that is missing or not a number."""
    text: Mapping[str, Any] = raw.get("text_config") or raw

    def number(key: str, default: int | None = None) -> int:
        value = text.get(key, raw.get(key, default))
        if isinstance(value, bool) or not isinstance(value, int):
            raise UsageError(f"config.json of {name}: {key} is {value!r}", remedy=f"{key} must be a whole number")
        return value

    heads = number("num_attention_heads")
    hidden = number("hidden_size")
    layers = number("num_hidden_layers")
    window = text.get("sliding_window")
    kinds = text.get("layer_types") or []
    sliding = sum(kind == "sliding_attention" for kind in kinds) if isinstance(window, int) else 0
    experts = text.get("num_local_experts") or text.get("n_routed_experts") or text.get("num_experts")
    quantization = raw.get("quantization_config") or text.get("quantization_config") or {}
    vision = raw.get("vision_config") or {}
    architectures = raw.get("architectures") or text.get("architectures") or ["UnknownForCausalLM"]
    return ModelConfig(
        name=name,
        architecture=str(architectures[0]),
        hidden_size=hidden,
        layers=layers,
        attention_heads=heads,
        kv_heads=number("num_key_value_heads", heads),
        head_dim=number("head_dim", hidden // heads),
        intermediate_size=number("intermediate_size"),
        vocab_size=number("vocab_size"),
        tied_embeddings=bool(text.get("tie_word_embeddings", raw.get("tie_word_embeddings", False))),
        max_position_embeddings=number("max_position_embeddings"),
        dtype_bytes=_DTYPE_BYTES.get(str(text.get("torch_dtype") or raw.get("torch_dtype") or text.get("dtype")), 2),
        quantization=quantization.get("quant_method"),
        sliding_window=window if sliding else None,
        sliding_layers=sliding,
        moe=None
        if not isinstance(experts, int)
        else MoeShape(
            experts=experts,
            shared_experts=number("n_shared_experts", 0),
            intermediate_size=number("moe_intermediate_size", number("intermediate_size")),
            dense_layers=number("first_k_dense_replace", 0),
        ),
        mla=None
        if "kv_lora_rank" not in text
        else MlaShape(
            kv_lora_rank=number("kv_lora_rank"),
            q_lora_rank=text.get("q_lora_rank"),
            qk_rope_head_dim=number("qk_rope_head_dim"),
            qk_nope_head_dim=number("qk_nope_head_dim"),
            v_head_dim=number("v_head_dim"),
        ),
        vision=None
        if not vision
        else VisionShape(
            hidden_size=int(vision["hidden_size"]),
            intermediate_size=int(vision["intermediate_size"]),
            layers=int(vision["num_hidden_layers"]),
            gated=vision.get("hidden_act") in {"silu", "swiglu"},
        ),
    )


@cache
def bundled_models() -> Mapping[str, ModelConfig]:
    """Return the model shapes that ship with kprof, by Hugging Face name."""
    folder = resources.files("orchestrator.vllm") / "model_configs"
    models: dict[str, ModelConfig] = {}
    for entry in folder.iterdir():
        if entry.name.endswith(".json"):
            raw = json.loads(entry.read_text(encoding="utf-8"))
            models[raw["name"]] = parse_model_config(raw, raw["name"])
    return models


def model_config(model: str) -> ModelConfig:
    """Return the shape of a bundled model or of a local folder with a `config.json`.

    Raises UsageError when there is neither: kprof never asks a model hub.
    """
    folder = Path(model)
    if (folder / "config.json").is_file():
        try:
            raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{folder / 'config.json'} cannot be read: {error}") from error
        return parse_model_config(raw, model)
    bundled = bundled_models()
    if model not in bundled:
        raise UsageError(
            f"the shape of {model!r} is not known",
            remedy="name a folder with its config.json, or one of: " + ", ".join(sorted(bundled)),
        )
    return bundled[model]
