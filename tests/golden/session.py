"""One log being written, and beside it what a correct reader must find in it."""

from dataclasses import dataclass, field

from tests.golden.catalogue import ENGINE_FACTS, FACTS, Printed, Text, Value, at_least, pick, record, render
from tests.golden.framing import LogWriter, Process
from tests.golden.setup import Setting

# Over several ranks or engines the smallest of these counts, of all others the largest.
SMALLEST = frozenset(
    {
        "kv_cache_gib",
        "kv_cache_in_use_gib",
        "kv_cache_tokens",
        "kv_cache_blocks",
        "max_concurrency",
        "concurrency_tokens",
        "device_total_gib",
        "device_free_gib",
        "requested_gib",
        "utilization_ratio",
        "free_after_profile_gib",
        "free_in_request_gib",
    }
)
Expected = dict[str, object]
# Figures of a rank that the log does not name count in the overall facts only.
UNKNOWN_RANK = "?"


@dataclass
class Session:
    """Writes records of a version and books every figure that they show."""

    version: str
    writer: LogWriter
    project: str = "vllm"
    shown_version: str | None = None
    platform: str | None = None
    ready: bool = False
    optional: set[str] = field(default_factory=set)
    settings: dict[str, Setting] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)
    failure_kinds: list[str] | None = None
    failure_contains: str | None = None
    _ranks: dict[str, dict[str, Printed]] = field(default_factory=dict)
    _engine: dict[str, list[Printed]] = field(default_factory=dict)

    def say(
        self,
        group: str,
        process: Process,
        values: dict[str, Value] | None = None,
        *,
        rank: str | None = None,
        every_rank: bool = False,
    ) -> bool:
        """Write what this version prints for a group of lines; False where it prints nothing at this log level."""
        item = pick(group, self.version, project=self.project, every_rank=every_rank)
        return item is not None and self.say_record(item.id, process, values, rank=rank)

    def say_record(
        self, identifier: str, process: Process, values: dict[str, Value] | None = None, *, rank: str | None = None
    ) -> bool:
        """Write one certain record; False where the log level hides it."""
        item = record(identifier)
        if item.level.startswith("DEBUG") and not self.writer.debug:
            return False
        self.say_text(render(item, values or {}), process, rank=rank)
        return True

    def say_text(self, text: Text, process: Process, *, rank: str | None = None) -> None:
        """Write a rendered message and book its figures."""
        self.said.add(text.record.id)
        self.writer.known(process, text.record, text.text)
        self.book(text.figures, rank or process.rank or "TP0")

    def book(self, figures: dict[str, Printed], rank: str) -> None:
        """Note figures as printed; of two prints of one figure the one with more decimals counts."""
        for name, figure in figures.items():
            if name in ENGINE_FACTS:
                self._engine.setdefault(name, []).append(figure)
                continue
            known = self._ranks.setdefault(rank, {}).get(name)
            if known is None or figure.decimals > known.decimals:
                self._ranks[rank][name] = figure

    def note(self, process: Process, message: str, *, level: str = "INFO", file: str = "vllm/utils.py") -> None:
        """Write a record that says nothing of memory."""
        self.writer.record(process, level, file, message)

    def ranks(self) -> dict[str, dict[str, float]]:
        """Return the figures of every rank, with what follows from them."""
        found = {}
        for rank, figures in sorted(self._ranks.items()):
            values = {name: round(figure.value, 6) for name, figure in sorted(figures.items())}
            if at_least(self.version, "0.27.0") and "consumed_gib" in values and "weights_gib" in values:
                values["non_torch_gib"] = round(values["consumed_gib"] - values["weights_gib"], 6)
            if "kv_cache_in_use_gib" in values:
                # From 0.11.1 one rank only prints its own line; the others tell what is in use, at the end.
                values.setdefault("kv_cache_gib", values["kv_cache_in_use_gib"])
            found[rank] = values
        return found

    def facts(self) -> dict[str, float]:
        """Return the overall facts."""
        values: dict[str, list[float]] = {
            name: [round(item.value, 6) for item in items] for name, items in self._engine.items()
        }
        direct = any("kv_cache_gib" in figures for figures in self._ranks.values())
        for rank, figures in self.ranks().items():
            for name, value in figures.items():
                if name != "kv_cache_gib" or not direct or name in self._ranks[rank]:
                    values.setdefault(name, []).append(value)
        return {name: min(items) if name in SMALLEST else max(items) for name, items in sorted(values.items())}

    def expected(self, log: str) -> Expected:
        """Return the entry of expected.json; after a failure only what was printed before it is certain."""
        facts = self.facts()
        open_facts = set(FACTS) if self.failure_kinds is not None else self.optional
        return {
            "log": log,
            "vllm_version": self.shown_version,
            "platform": self.platform,
            "engine_ready": self.ready,
            "facts": {name: value for name, value in facts.items() if name not in self.optional},
            "ranks": {
                rank: {name: value for name, value in figures.items() if name not in self.optional}
                for rank, figures in self.ranks().items()
                if rank != UNKNOWN_RANK
            },
            "absent": sorted(set(FACTS) - facts.keys() - open_facts),
            "optional": sorted(self.optional),
            "settings": dict(sorted(self.settings.items())),
            "failure_kinds": self.failure_kinds,
            "failure_contains": self.failure_contains,
        }
