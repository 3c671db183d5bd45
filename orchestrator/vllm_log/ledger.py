"""The book of facts: every value under its process, named by rank and reduced to overall values at the end."""

from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.vllm_log.result import FACTS, Evidence

MAX_PROCESSES = 1024

Facts = dict[str, float]
NO_RANK = ""
_FIRST_RANKS = frozenset({"TP0", "PP0", "PP0_TP0", "DP0_TP0", "DP0_PP0_TP0"})
ENGINE_FACTS = frozenset(
    {"kv_cache_tokens", "kv_cache_blocks", "max_concurrency", "concurrency_tokens", "engine_init_seconds"}
)


@dataclass(slots=True)
class Sums:
    """The book closed: overall facts, facts per rank, the proof of each overall fact, and how others were derived."""

    overall: Facts = field(default_factory=dict)
    ranks: dict[str, Facts] = field(default_factory=dict)
    evidence: dict[str, Evidence] = field(default_factory=dict)
    derived: dict[str, str] = field(default_factory=dict)


class Place(NamedTuple):
    """Where a process stands: its data-, pipeline-, prefill-context- and tensor-parallel rank."""

    data: int
    pipeline: int
    context: int
    tensor: int


class Ledger:
    """Keeps the last value of each fact of each process, and the line that gave it; of the engine the one that counts.

    A process may change its name during start-up (`Worker` becomes `Worker_PP1`), so it is known by its pid.
    """

    def __init__(self) -> None:
        self._books: dict[str, dict[str, tuple[float, Evidence]]] = {}
        self._engine: dict[str, tuple[float, Evidence]] = {}
        self._in_passing: dict[str, tuple[float, Evidence]] = {}
        self._ranks: dict[str, str] = {}
        self._assigned: dict[str, Place] = {}
        self._first_engines: set[str] = set()

    def name(self, pid: str | None, rank: str | None) -> None:
        """Note the rank that a line gives its process."""
        if pid is not None and rank is not None and (pid in self._ranks or len(self._ranks) < MAX_PROCESSES):
            self._ranks[pid] = rank

    def name_first_engine(self, pid: str | None) -> None:
        """Note that a process is `EngineCore_DP0`, which is a rank only where there are others."""
        if pid is not None and len(self._first_engines) < MAX_PROCESSES:
            self._first_engines.add(pid)

    def assign(self, pid: str | None, place: Place) -> None:
        """Note the ranks that a process was told to be."""
        if pid is not None and len(self._assigned) < MAX_PROCESSES:
            self._assigned[pid] = place

    def rank_of(self, pid: str | None) -> str | None:
        """Return the rank of a process as far as the log has told it."""
        if pid is None:
            return None
        if pid in self._ranks:
            return self._ranks[pid]
        if pid in self._first_engines and any(rank.startswith("DP") for rank in self._ranks.values()):
            return "DP0_TP0"
        if pid not in self._assigned:
            return None
        place = self._assigned[pid]
        others = self._assigned.values()
        parts = [
            f"{name}{rank}"
            for index, (name, rank) in enumerate(zip(("DP", "PP", "PCP"), place[:3], strict=True))
            if any(other[index] for other in others)
        ]
        return "_".join((*parts, f"TP{place.tensor}"))

    def put_in_passing(self, name: str, value: float, proof: Evidence) -> None:
        """Book a value that counts only when no line says it better: what an error message mentions in passing."""
        self._in_passing.setdefault(name, (value, proof))

    def put(self, name: str, value: float, pid: str | None, proof: Evidence) -> None:
        """Book a value under its process, or under the engine as a whole."""
        if name in ENGINE_FACTS:
            known = self._engine.get(name)
            # Engines of one server (data parallel, or one line per rank) may differ; the smallest capacity counts.
            if known is None or _counts_more(name, value, known[0]):
                self._engine[name] = (value, proof)
            return
        book = pid or ""
        if book not in self._books and len(self._books) >= MAX_PROCESSES:
            return
        before = self._books.setdefault(book, {}).get(name)
        if before is not None and round(before[0], 2) == value:
            return  # the same figure again, rounded; the first one is more exact
        self._books[book][name] = (value, proof)

    def tells(self, name: str, pid: str) -> bool:
        """Say whether a process has told a fact."""
        return name in self._books.get(pid, {})

    def add(self, name: str, value: float, pid: str | None, proof: Evidence) -> None:
        """Book a value that comes on top of what its process has told."""
        before = self._books.get(pid or "", {}).get(name, (0.0, proof))[0]
        self.put(name, before + value, pid, proof)

    def has(self, name: str, rank: str, *, but_not_of: str | None) -> bool:
        """Say whether a process of this rank has told a fact, another process than the one given."""
        return any(
            self.rank_of(book) == rank and name in facts for book, facts in self._books.items() if book != but_not_of
        )

    def engine(self, name: str) -> float | None:
        """Return what the engine as a whole has told of a fact so far."""
        return self._engine[name][0] if name in self._engine else None

    def _labels(self) -> dict[str, str]:
        labels = {book: rank for book in self._books if (rank := self.rank_of(book)) is not None}
        taken = set(labels.values())
        # The driver has no prefix and is the first rank; workers whose names do not tell follow as they appeared. Where
        # the first rank is named, lines without prefix come from workers that had no name yet: nobody knows which.
        if taken & _FIRST_RANKS:
            labels[""] = NO_RANK
        unnamed = sorted((book for book in self._books if book not in labels), key=lambda book: book != "")
        index = 0
        for book in unnamed:
            while f"TP{index}" in taken:
                index += 1
            labels[book] = f"TP{index}"
            taken.add(labels[book])
        return labels

    def close(self) -> Sums:
        """Reduce the books: per rank, and over ranks the largest of what is used, the smallest of what is left."""
        sums = Sums()
        proofs: dict[tuple[str, str], Evidence] = {}
        for book, rank in self._labels().items():
            for name, (value, proof) in self._books.get(book, {}).items():
                facts = sums.ranks.setdefault(rank, {})
                if name not in facts or _counts_more(name, value, facts[name]):
                    facts[name] = value
                    proofs[rank, name] = proof
        _derive(sums)
        chosen: dict[str, Evidence] = {}
        for rank, facts in sums.ranks.items():
            for name, value in facts.items():
                if name not in sums.overall or _counts_more(name, value, sums.overall[name]):
                    sums.overall[name] = value
                    if (rank, name) in proofs:
                        chosen[name] = proofs[rank, name]
        for name, (value, proof) in {
            **{n: v for n, v in self._in_passing.items() if n not in sums.overall},
            **self._engine,
        }.items():
            sums.overall[name], chosen[name] = value, proof
        sums.evidence = chosen
        _use_what_is_in_use(sums)
        sums.ranks.pop(NO_RANK, None)
        return sums


def _counts_more(name: str, value: float, known: float) -> bool:
    return FACTS.get(name, min)(value, known) != known


def _derive(sums: Sums) -> None:
    """Compute what a version merges with something else, and say how."""
    for facts in sums.ranks.values():
        if "non_torch_gib" not in facts and {"consumed_gib", "weights_gib"} <= facts.keys():
            facts["non_torch_gib"] = round(facts["consumed_gib"] - facts["weights_gib"], 4)
            sums.derived["non_torch_gib"] = "consumed_gib - weights_gib"


def _use_what_is_in_use(sums: Sums) -> None:
    """Give a rank without a KV cache line of its own the size that it says at the end to have in use.

    Overall, such sizes count only when no rank printed the line itself: they are told in a DEBUG line, and not of
    every version.
    """
    given = [facts["kv_cache_in_use_gib"] for facts in sums.ranks.values() if "kv_cache_in_use_gib" in facts]
    if given and "kv_cache_gib" not in sums.overall:
        sums.overall["kv_cache_gib"] = min(given)
        sums.derived["kv_cache_gib"] = "kv_cache_in_use_gib"
    for facts in sums.ranks.values():
        if "kv_cache_gib" not in facts and "kv_cache_in_use_gib" in facts:
            facts["kv_cache_gib"] = facts["kv_cache_in_use_gib"]
            sums.derived["kv_cache_gib"] = "kv_cache_in_use_gib"
