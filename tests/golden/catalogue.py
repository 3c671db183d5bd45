"""The format strings of vLLM: which one a version prints, and the text it makes of known values."""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.version import Version

FOLDER = Path(__file__).parent
GIB = 2**30

# Facts of the whole engine; all others belong to a rank.
ENGINE_FACTS = frozenset(
    {
        "kv_cache_tokens",
        "kv_cache_blocks",
        "cpu_blocks",
        "max_concurrency",
        "concurrency_tokens",
        "engine_init_seconds",
    }
)
RANK_FACTS = frozenset(
    {
        "weights_gib",
        "activation_gib",
        "non_torch_gib",
        "consumed_gib",
        "non_kv_cache_gib",
        "cuda_graph_gib",
        "cuda_graph_estimated_gib",
        "kv_cache_gib",
        "kv_cache_in_use_gib",
        "encoder_cache_tokens",
        "device_total_gib",
        "device_free_gib",
        "requested_gib",
        "utilization_ratio",
        "free_after_profile_gib",
        "free_in_request_gib",
        "external_weights_gib",
        "model_load_seconds",
        "compile_seconds",
        "profile_seconds",
        "graph_capture_seconds",
    }
)
FACTS = ENGINE_FACTS | RANK_FACTS
_PERCENT = re.compile(r"%(?:\.\d+|0\d+)?[sdfr]")
_BRACES = re.compile(r"\{[^{}]*\}")

Value = float | int | str


@dataclass(frozen=True)
class Record:
    """One line of formats.json; `facts` maps the meaning of each placeholder, in order, to how it is printed."""

    id: str
    pattern: str
    level: str
    once: bool
    version_ranges: tuple[tuple[str, str], ...]
    backend: str
    project: str
    file: str
    function: str
    facts: dict[str, str]

    @property
    def group(self) -> str:
        """Return the id without its running number."""
        head, _, tail = self.id.rpartition(".")
        return head if tail.isdigit() else self.id

    def covers(self, version: str) -> bool:
        """Say whether this version prints the line."""
        return any(between(first, version, last) for first, last in self.version_ranges)


@dataclass(frozen=True)
class Printed:
    """A figure as the line prints it, and to how many decimals it can be trusted."""

    value: float
    decimals: int


@dataclass(frozen=True)
class Text:
    """A rendered message and the figures it shows."""

    record: Record
    text: str
    figures: dict[str, Printed]


@cache
def _version(text: str) -> Version:
    return Version(text)


def at_least(version: str, first: str) -> bool:
    """Compare two releases."""
    return _version(version) >= _version(first)


def between(first: str, version: str, last: str) -> bool:
    """Say whether a release lies in a range, both ends included."""
    return _version(first) <= _version(version) <= _version(last)


@cache
def records() -> tuple[Record, ...]:
    """Return all lines of formats.json."""
    raw = json.loads((FOLDER / "formats.json").read_text(encoding="utf-8"))
    return tuple(
        Record(**{**item, "version_ranges": tuple((first, last) for first, last in item["version_ranges"])})
        for item in raw
    )


@cache
def record(identifier: str) -> Record:
    """Return the record of an id."""
    return next(item for item in records() if item.id == identifier)


@cache
def pick(group: str, version: str, *, project: str = "vllm", every_rank: bool = False) -> Record | None:
    """Return what a version prints for a group of lines, None where it prints nothing.

    `every_rank` asks for the variant of the second model runner, which every rank prints.
    """
    found = [item for item in records() if item.group == group and item.project == project and item.covers(version)]
    if len(found) > 1:
        found = [item for item in found if item.once != every_rank] or found
    return found[0] if found else None


def render(item: Record, values: dict[str, Value]) -> Text:
    """Fill the placeholders of a format string; `values` are in GiB and seconds, or ready-made text."""
    names = list(item.facts.items())
    holes = _PERCENT if len(_PERCENT.findall(item.pattern)) == len(names) else _BRACES
    figures: dict[str, Printed] = {}
    parts: list[str] = []
    end = 0
    for (name, how), hole in zip(names, holes.finditer(item.pattern), strict=False):
        plain = name.partition("#")[0]
        value = values[name] if name in values else values[plain]
        shown = printed(value, how)
        parts += [item.pattern[end : hole.start()], shown]
        end = hole.end()
        figure = None if plain not in FACTS else read_back(shown, how)
        if figure is not None and (plain not in figures or figures[plain].decimals < figure.decimals):
            figures[plain] = figure
    parts.append(item.pattern[end:])
    if holes is _PERCENT:
        parts = [part.replace("%%", "%") if index % 2 == 0 else part for index, part in enumerate(parts)]
    return Text(item, "".join(parts), figures)


def printed(value: Value, how: str) -> str:
    """Return a value as the format prints it."""
    if isinstance(value, str):
        return repr(value) if how == "%r" else value
    if how == "round2":
        return str(round(float(value), 2))
    if how.startswith("comma"):
        return f"{int(value):,}"
    if how == "bytes":
        return str(int(value * GIB))
    if how == "mib":
        return f"{value * 1024:.2f}"
    if how == "size":
        return habana_size(float(value))
    if how == "full":
        return repr(float(value))
    return how % value


def read_back(shown: str, how: str) -> Printed | None:
    """Return the number that a reader takes from the printed form."""
    plain = shown.replace(",", "")
    if how == "bytes":
        return Printed(int(plain) / GIB, 9)
    if how == "mib":
        return Printed(float(plain) / 1024, 5)
    if how == "size":
        number, unit = plain.split()
        return Printed(float(number) / {"GiB": 1, "MiB": 2**10, "KiB": 2**20}[unit], 2)
    try:
        number_read = float(plain)
    except ValueError:
        return None
    return Printed(number_read, len(plain.partition(".")[2]) if how != "round2" else 2)


def habana_size(gib: float) -> str:
    """Return a size in the way of vLLM's Gaudi backend: four digits and a unit."""
    for unit, factor in (("GiB", 1.0), ("MiB", 2.0**10)):
        if abs(gib) * factor >= 1:
            return f"{gib * factor:.4g} {unit}"
    return f"{gib * 2**20:.4g} KiB"
