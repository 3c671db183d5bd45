"""The book of facts: every value under its process, named by rank and reduced to overall values at the end."""

from orchestrator.vllm_log.result import LARGEST, Evidence

MAX_PROCESSES = 1024

Facts = dict[str, float]
ENGINE_FACTS = frozenset(
    {"kv_cache_tokens", "kv_cache_blocks", "max_concurrency", "concurrency_tokens", "engine_init_seconds"}
)


class Ledger:
    """Keeps the last value of each fact of each process, and the line that gave it.

    A process may change its name during start-up (`Worker` becomes `Worker_PP1`), so it is known by its pid.
    """

    def __init__(self) -> None:
        self._books: dict[str, Facts] = {}
        self._lines: dict[tuple[str, str], Evidence] = {}
        self._engine: Facts = {}
        self._engine_lines: dict[str, Evidence] = {}
        self._in_passing: dict[str, tuple[float, Evidence]] = {}
        self._ranks: dict[str, str] = {}

    def name(self, pid: str | None, rank: str | None) -> None:
        """Note the rank that a line gives its process."""
        if pid is not None and rank is not None and (pid in self._ranks or len(self._ranks) < MAX_PROCESSES):
            self._ranks[pid] = rank

    def rank_of(self, pid: str | None) -> str | None:
        """Return the rank of a process as far as the log has told it."""
        return self._ranks.get(pid or "")

    def put_in_passing(self, name: str, value: float, evidence: Evidence) -> None:
        """Book a value that counts only when no line says it better: what an error message mentions in passing."""
        self._in_passing.setdefault(name, (value, evidence))

    def put(self, name: str, value: float, pid: str | None, evidence: Evidence) -> None:
        """Book a value under its process, or under the engine as a whole."""
        if name in ENGINE_FACTS:
            known = self._engine.get(name)
            # Engines of one server (data parallel, or one line per rank) may differ; the smallest capacity counts.
            if known is None or (value > known if name in LARGEST else value < known):
                self._engine[name] = value
                self._engine_lines[name] = evidence
            return
        book = pid or ""
        if book not in self._books and len(self._books) >= MAX_PROCESSES:
            return
        known = self._books.setdefault(book, {}).get(name)
        if known is not None and round(known, 2) == value:
            return  # the same figure again, rounded; the first one is more exact
        self._books[book][name] = value
        self._lines[book, name] = evidence

    def _labels(self) -> dict[str, str]:
        labels = {book: self._ranks[book] for book in self._books if book in self._ranks}
        taken = set(labels.values())
        # The driver has no prefix and is the first rank; workers whose names do not tell follow as they appeared.
        unnamed = sorted((book for book in self._books if book not in self._ranks), key=lambda book: book != "")
        index = 0
        for book in unnamed:
            while f"TP{index}" in taken:
                index += 1
            labels[book] = f"TP{index}"
            taken.add(labels[book])
        return labels

    def reduce(self) -> tuple[Facts, dict[str, Facts], dict[str, Evidence], dict[str, str]]:
        """Return overall facts, facts per rank, the evidence of each overall fact, and what was derived and how."""
        derived: dict[str, str] = {}
        ranks: dict[str, Facts] = {}
        lines: dict[tuple[str, str], Evidence] = {}
        for book, label in self._labels().items():
            for name, value in self._books[book].items():
                ranks.setdefault(label, {})[name] = value
                lines[label, name] = self._lines[book, name]
        for facts in ranks.values():
            if "non_torch_gib" not in facts and {"consumed_gib", "weights_gib"} <= facts.keys():
                facts["non_torch_gib"] = round(facts["consumed_gib"] - facts["weights_gib"], 4)
                derived["non_torch_gib"] = "consumed_gib - weights_gib"
        overall: Facts = {}
        evidence: dict[str, Evidence] = {}
        for rank, facts in ranks.items():
            for name, value in facts.items():
                known = overall.get(name)
                if known is None or (value > known if name in LARGEST else value < known):
                    overall[name] = value
                    if (rank, name) in lines:
                        evidence[name] = lines[rank, name]
        for name, (value, line) in self._in_passing.items():
            if name not in overall:
                overall[name], evidence[name] = value, line
        overall.update(self._engine)
        evidence.update(self._engine_lines)
        return overall, ranks, evidence, derived
