"""Arguments of `vllm serve`: one canonical spelling, and the argv made of them."""

import json
from collections.abc import Mapping

from orchestrator.errors import UsageError

ArgumentValue = bool | int | float | str | list["ArgumentValue"] | dict[str, "ArgumentValue"] | None
UTILIZATION = "gpu-memory-utilization"
PARALLEL_SIZES = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")

SHORT_NAMES: Mapping[str, str] = {
    "tp": "tensor-parallel-size",
    "pp": "pipeline-parallel-size",
    "dp": "data-parallel-size",
    "q": "quantization",
    "kv-cache-memory": "kv-cache-memory-bytes",
}

OWNED_BY_KPROF: Mapping[str, str] = {
    "model": "write `model:` beside `arguments:`",
    "model-tag": "write `model:` beside `arguments:`",
    "host": "kprof listens on every address of the pod",
    "port": "kprof chooses the port",
    "uds": "kprof probes over TCP",
    "api-key": "kprof probes without a key; a key would stand in the pod's arguments",
    "hf-token": "name its Secret under `huggingFaceToken:`",
    "headless": "kprof needs the HTTP server",
    "config": "write the arguments in the matrix, so that they are part of the point's identity",
}


def canonical_name(name: str) -> str:
    """Return the canonical spelling: `--tensor_parallel_size`, `tp` and `-tp` are `tensor-parallel-size`.

    Raises UsageError for a name that is no flag, or that kprof sets itself.
    """
    bare = name.strip().lstrip("-").replace("_", "-")
    bare = SHORT_NAMES.get(bare, bare)
    if not bare or not all(part.replace(".", "").isalnum() for part in bare.split("-") if part):
        raise UsageError(f"{name!r} is not the name of a vLLM argument", remedy="use letters, digits and dashes")
    if bare in OWNED_BY_KPROF:
        raise UsageError(f"the argument {bare!r} is set by kprof", remedy=OWNED_BY_KPROF[bare])
    return bare


def canonical_argument(name: str, value: ArgumentValue) -> tuple[str, ArgumentValue]:
    """Return name and value in the one form that equal configurations share: `no-x: true` is `x: false`."""
    canonical = canonical_name(name)
    if not canonical.startswith("no-"):
        return canonical, canonical_value(value)
    if isinstance(value, bool):
        return canonical.removeprefix("no-"), not value
    if isinstance(value, list) and value and all(isinstance(item, bool) for item in value):
        return canonical.removeprefix("no-"), [not item for item in value]
    return canonical, canonical_value(value)


def canonical_value(value: ArgumentValue) -> ArgumentValue:
    """Return one value in the form that equal configurations share: 1.0 is 1, mappings are sorted."""
    if isinstance(value, str):
        return _plain_number(value)
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, list):
        return [canonical_value(item) for item in value]
    return {key: canonical_value(value[key]) for key in sorted(value)}


def _plain_number(text: str) -> str | int | float:
    # A number in quotes is the same word on a command line, when it is written as the number would be.
    if text.isascii() and text.removeprefix("-").isdigit() and len(text) < 16 and str(int(text)) == text:
        return int(text)
    if text.isascii() and text.replace(".", "", 1).isdigit() and len(text) < 16 and repr(float(text)) == text:
        return canonical_value(float(text))  # type: ignore[return-value]  # a float gives a number
    return text


def value_text(value: ArgumentValue) -> str:
    """Return one value as vLLM reads it on a command line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"), sort_keys=True)
    return repr(value) if isinstance(value, float) else str(value)


def serve_argv(model: str, arguments: Mapping[str, ArgumentValue]) -> list[str]:
    """Return the arguments of `vllm serve`: the model, then the flags in alphabetical order.

    `true` becomes `--flag`, `false` becomes `--no-flag`, a list becomes `--flag a b`, a mapping JSON.
    """
    argv = [model]
    for name in sorted(arguments):
        value = arguments[name]
        if isinstance(value, bool):
            argv.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, list):
            argv.append(f"--{name}")
            argv.extend(value_text(item) for item in value)
        else:
            argv.append(f"--{name}={value_text(value)}")
    return argv


def positive_int(arguments: Mapping[str, ArgumentValue], name: str, default: int) -> int:
    """Return an argument that must be a whole number of at least 1; raises UsageError otherwise."""
    value = arguments.get(name, default)
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} is {value!r}", remedy=f"{name} must be a whole number of at least 1")
    return value


def check_value(name: str, value: ArgumentValue) -> None:
    """Raise UsageError for a value with which no engine can start, by an argument's canonical name; None is allowed."""
    if name in PARALLEL_SIZES and value is not None:
        positive_int({name: value}, name, 1)
    if name == UTILIZATION and value is not None and not _is_part(value):
        raise UsageError(f"{name} is {value!r}", remedy=f"{name} must be a number from 0 to 1, and not 0")


def _is_part(value: ArgumentValue) -> bool:
    """Say whether a value is above 0 and at most 1, as a number or as the word for one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    try:
        return 0 < float(value) <= 1
    except ValueError:
        return False


def accelerators_needed(arguments: Mapping[str, ArgumentValue]) -> int:
    """Return tensor x pipeline x data parallel size, the devices one server of these arguments takes."""
    count = 1
    for name in PARALLEL_SIZES:
        count *= positive_int(arguments, name, 1)
    return count
