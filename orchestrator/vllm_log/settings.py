"""The settings that drive memory, as far as the log tells what the engine used in the end."""

import re

Setting = str | int | float | bool

_KINDS: dict[str, type] = {
    "tensor_parallel_size": int,
    "pipeline_parallel_size": int,
    "data_parallel_size": int,
    "max_model_len": int,
    "max_num_seqs": int,
    "max_num_batched_tokens": int,
    "block_size": int,
    "gpu_memory_utilization": float,
    "kv_cache_memory_bytes": int,
    "kv_cache_dtype": str,
    "quantization": str,
    "dtype": str,
    "enforce_eager": bool,
}
_OTHER_NAMES = {"max_seq_len": "max_model_len"}  # the engine's own word
# "max_num_seqs=256", "'max_num_seqs': 256". The lines are many thousand characters long, so each pass looks for one
# letter that is rare in them and common to several names: x, z, y and the g of enforce_eager.
_VALUE = r"['\"]?\s?[=:]\s?'?([\w.\-/]{1,60})'?(?=[,)}\s]|$)"
_PASSES = tuple(
    re.compile(pattern + _VALUE)
    for pattern in (
        r"x_(?:model_len|seq_len|num_seqs|num_batched_tokens)",
        r"z(?:e|ation)",
        r"y(?:pe|tes)",
        r"ger",
    )
)
# A draft model has settings of the same names.
_DRAFT = re.compile(
    r"speculative_config['\"]?\s?[=:]\s?(?:\{(?:[^{}]|\{[^{}]{0,2000}\}){0,4000}\}|SpeculativeConfig\([^()]{0,2000}\))"
)
_NAME_AT_END = re.compile(r"(?<![\w-])\w{1,40}\Z")
# The lines that tell what a default came to.
_SAYINGS: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    ("max_model_len", "Using max model len ", re.compile(r"Using max model len (\d{1,12})")),
    (
        "max_num_batched_tokens",
        "max_num_batched_tokens to ",
        re.compile(r"(?:Setting|Defaulting) max_num_batched_tokens to (\d{1,12}) for"),
    ),
    (
        "max_model_len",
        "Auto-fit max_model_len: reduced",
        re.compile(r"Auto-fit max_model_len: reduced from \d{1,12} to (\d{1,12})"),
    ),
    ("max_num_seqs", "max_num_seqs to ", re.compile(r"(?:Setting|Defaulting) max_num_seqs to (\d{1,12}) for")),
)


def read_settings(text: str) -> dict[str, Setting]:
    """Return the settings that a line tells; what it does not name, or names None or auto, is left out."""
    found: dict[str, Setting] = {}
    if "speculative_config" in text:
        text = _DRAFT.sub("", text)
    for one in _PASSES:
        for match in one.finditer(text):
            end = match.start(1)
            head = text[max(0, match.start() - 40) : end].rstrip("'\"=: ")
            name_at = _NAME_AT_END.search(head)
            name = _OTHER_NAMES.get(name_at.group(), name_at.group()) if name_at else ""
            if name in _KINDS and name not in found and (value := _value(_KINDS[name], match.group(1))) is not None:
                found[name] = value
    for name, needle, pattern in _SAYINGS:
        if needle in text and (said := pattern.search(text)):
            found[name] = int(said.group(1))
    return found


def _value(kind: type, text: str) -> Setting | None:
    if text in ("None", "auto"):
        return None
    if kind is bool:
        return {"True": True, "False": False}.get(text)
    if kind is str:
        return text.rstrip(".")
    try:
        value = float(text)
    except ValueError:
        return None
    if kind is float:
        return value if 0 < value < 1e6 else None
    return int(value) if value.is_integer() and 0 <= value < 1e15 else None
