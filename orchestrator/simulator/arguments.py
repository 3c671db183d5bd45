"""The command line of `vllm serve`, read with argparse as vLLM does it."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from packaging.version import Version

from orchestrator.simulator.flags import ENGINE_FLAGS, FRONT_END_FLAGS, Flag
from orchestrator.vllm.arguments import ArgumentValue
from orchestrator.vllm.settings import default_gpu_memory_utilization
from orchestrator.vllm.version import at_least

DEFAULT_MODEL = "Qwen/Qwen3-0.6B"
_FACTORS = {
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "K": 2**10,
    "M": 2**20,
    "G": 2**30,
    "T": 2**40,
}
_DEFAULTS: Mapping[str, ArgumentValue] = {
    "host": "",
    "port": 8000,
    "tensor-parallel-size": 1,
    "pipeline-parallel-size": 1,
    "data-parallel-size": 1,
    "dtype": "auto",
    "kv-cache-dtype": "auto",
    "load-format": "auto",
    "tokenizer-mode": "auto",
    "config-format": "auto",
    "generation-config": "auto",
    "enforce-eager": False,
    "trust-remote-code": False,
    "uvicorn-log-level": "info",
    "swap-space": 4.0,
}


@dataclass(frozen=True, slots=True)
class ServeArguments:
    """Arguments of one server: `given` has canonical names; `front_end` those that are not the engine's."""

    model: str
    given: Mapping[str, ArgumentValue]
    non_default: Mapping[str, ArgumentValue]

    @property
    def host(self) -> str | None:
        """Return the address to bind, None for every address."""
        value = self.given.get("host")
        return None if value in {None, ""} else str(value)

    @property
    def port(self) -> int:
        """Return the TCP port, 0 when the operating system chooses."""
        return int(str(self.given.get("port", 8000)))

    @property
    def api_keys(self) -> frozenset[str]:
        """Return the accepted keys, empty when none is asked for."""
        keys = self.given.get("api-key", [])
        return frozenset(str(key) for key in keys) if isinstance(keys, list) else frozenset({str(keys)})

    @property
    def served_names(self) -> list[str]:
        """Return the names under which the API knows the model, the first one in metrics."""
        names = self.given.get("served-model-name")
        return [str(name) for name in names] if isinstance(names, list) and names else [self.model]


def human_readable_int(text: str) -> int:
    """Read a whole number as vLLM does: `16k` is 16000, `16K` is 16384."""
    if text and text[-1] in _FACTORS:
        return int(float(text[:-1]) * _FACTORS[text[-1]])
    return int(text)


def length_or_auto(text: str) -> int | str:
    """Read a length in tokens or a size in bytes; `auto` stays a word."""
    return "auto" if text.lower() in {"auto", "-1"} else human_readable_int(text)


def json_value(text: str) -> ArgumentValue:
    """Read a JSON value, or the text itself where vLLM also takes `key=value`."""
    try:
        value: ArgumentValue = json.loads(text)
    except ValueError:
        return text
    return value


_READERS: Mapping[str, Callable[[str], ArgumentValue]] = {
    "int": int,
    "float": float,
    "str": str,
    "json": json_value,
    "length": length_or_auto,
}


class _Parser(argparse.ArgumentParser):
    """argparse that prints its usage on standard output, where the log goes, and its error on standard error."""

    def error(self, message: str) -> NoReturn:
        self.print_usage()
        self.exit(2, f"{self.prog}: error: {message}\n")


def _available(flag: Flag, version: Version) -> bool:
    if flag.first is not None and not at_least(version, flag.first):
        return False
    return flag.last is None or Version(version.base_version) <= Version(flag.last)


def _add(parser: argparse.ArgumentParser, flag: Flag) -> None:
    names = [f"--{flag.name}", *([flag.short] if flag.short else [])]
    destination = flag.name
    if flag.kind == "bool":
        parser.add_argument(*names, dest=destination, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
    elif flag.kind == "list":
        parser.add_argument(*names, dest=destination, nargs="+", default=argparse.SUPPRESS)
    else:
        parser.add_argument(
            *names, dest=destination, type=_READERS[flag.kind], choices=flag.choices, default=argparse.SUPPRESS
        )


def build_parser(version: Version) -> argparse.ArgumentParser:
    """Return the parser of the release: the root `vllm` with its sub-command `serve`."""
    root = _Parser(prog="vllm", usage="vllm [-h] [-v] {chat,complete,serve,bench,collect-env,run-batch} ...")
    commands = root.add_subparsers(dest="subparser", required=True, parser_class=_Parser)
    serve = commands.add_parser("serve", prog="vllm serve", usage="vllm serve [model_tag] [options]")
    serve.add_argument("model_tag", nargs="?", default=None)
    for flag in (*FRONT_END_FLAGS, *ENGINE_FLAGS):
        if _available(flag, version):
            _add(serve, flag)
    return root


def _dashed(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def _without_dots(argv: Sequence[str]) -> list[str]:
    """Gather `--name.key value` and `--name.key=value` into one `--name` with a JSON value, as vLLM does."""
    plain: list[str] = []
    gathered: dict[str, dict[str, ArgumentValue]] = {}
    rest = iter(argv)
    for argument in rest:
        name, equals, value = argument.partition("=")
        base, dot, key = name.partition(".")
        if not (dot and base.startswith("--")):
            plain.append(_dashed(argument))
            continue
        gathered.setdefault(_dashed(base), {})[key] = json_value(value if equals else next(rest, ""))
    for base, keys in gathered.items():
        plain.append(f"{base}={json.dumps(keys)}")
    return plain


def parse_serve(argv: Sequence[str], version: Version) -> ServeArguments:
    """Read `serve MODEL --flags`; an error prints vLLM's usage text and leaves with exit code 2."""
    parsed = vars(build_parser(version).parse_args(_without_dots(argv)))
    given: dict[str, ArgumentValue] = {
        name: value for name, value in parsed.items() if name not in {"subparser", "model_tag"}
    }
    tag = parsed.get("model_tag")
    model = str(tag or given.get("model") or DEFAULT_MODEL)
    if "device-memory-utilization" in given:
        given.setdefault("gpu-memory-utilization", given["device-memory-utilization"])
    defaults = {**_DEFAULTS, "gpu-memory-utilization": default_gpu_memory_utilization(version)}
    order = [flag.name for flag in (*FRONT_END_FLAGS, *ENGINE_FLAGS)]
    given_order = sorted(given, key=order.index)
    shown: dict[str, ArgumentValue] = {"model_tag": tag} if tag else {}
    for name in given_order:
        if name == "model" or (name in defaults and given[name] == defaults[name]):
            continue
        if name not in {flag.name for flag in FRONT_END_FLAGS} and "model" not in shown:
            shown["model"] = model
        shown[name.replace("-", "_")] = given[name]
    shown.setdefault("model", model)
    return ServeArguments(model=model, given=given, non_default=shown)
