"""Write a tiny Qwen3-architecture model folder, no weights: ``python3 tests/real_vllm/tiny_model.py DIR``.

Serve it with ``--load-format dummy``. The tokenizer knows one word per id, so text requests tokenize too:
``w17`` is token 17 (0 to 2 are special), words are separated by spaces, anything else is ``<unk>``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

VOCAB_SIZE = 256
LAYERS = 2
KV_HEADS = 2
HEAD_DIM = 32
HIDDEN_SIZE = 128
MAX_POSITIONS = 4096
UNK, BOS, EOS = 0, 1, 2
SPECIAL = {UNK: "<unk>", BOS: "<s>", EOS: "</s>"}
CHAT_TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


def config() -> dict[str, Any]:
    """Return the content of ``config.json``."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "hidden_size": HIDDEN_SIZE,
        "initializer_range": 0.02,
        "intermediate_size": 2 * HIDDEN_SIZE,
        "max_position_embeddings": MAX_POSITIONS,
        "num_attention_heads": 2 * KV_HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": VOCAB_SIZE,
    }


def tokenizer() -> dict[str, Any]:
    """Return the content of ``tokenizer.json``: a word-level vocabulary split on spaces."""
    vocab = {SPECIAL.get(i, f"w{i}"): i for i in range(VOCAB_SIZE)}
    added = [
        {
            "id": i,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, text in SPECIAL.items()
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": SPECIAL[UNK]},
    }


def tokenizer_config() -> dict[str, Any]:
    """Return the content of ``tokenizer_config.json``."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": SPECIAL[UNK],
        "bos_token": SPECIAL[BOS],
        "eos_token": SPECIAL[EOS],
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": MAX_POSITIONS,
        "chat_template": CHAT_TEMPLATE,
    }


def generation_config() -> dict[str, Any]:
    """Return the content of ``generation_config.json``."""
    return {"bos_token_id": BOS, "eos_token_id": EOS}


def write(folder: Path) -> None:
    """Write the four files of the model into ``folder``, made when missing."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "config.json": config(),
        "generation_config.json": generation_config(),
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": tokenizer_config(),
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Write the model where the only argument says."""
    if len(sys.argv) != 2:
        print("usage: tiny_model.py DIR", file=sys.stderr)
        return 2
    write(Path(sys.argv[1]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
