"""The book of facts: every value under its rank, reduced to overall values at the end."""

from orchestrator.vllm_log.result import LARGEST, Evidence

MAX_RANKS = 4096

Facts = dict[str, float]


class Ledger:
    """Keeps the last value of each fact per rank, and the line that gave it."""

    def __init__(self) -> None:
        self._ranks: dict[str, Facts] = {}
        self._lines: dict[tuple[str, str], Evidence] = {}
        self._engine: Facts = {}
        self._engine_lines: dict[str, Evidence] = {}
        self._pids: dict[str, str] = {}

    def rank_of_pid(self, pid: str | None) -> str | None:
        """Return the rank a process was seen under: one process may change its name during start-up."""
        return None if pid is None else self._pids.get(pid)

    def put(self, name: str, value: float, rank: str | None, pid: str | None, evidence: Evidence) -> None:
        """Book a value; `rank` None means the engine as a whole, or a worker whose rank the log does not tell."""
        if name in {"kv_cache_tokens", "kv_cache_blocks", "max_concurrency", "concurrency_tokens"}:
            self._engine_value(name, value, evidence)
            return
        if name == "engine_init_seconds":
            self._engine_value(name, value, evidence)
            return
        if rank is None:
            rank = "TP0" if pid is None else f"pid{pid}"
        if pid is not None and len(self._pids) < MAX_RANKS:
            self._pids.setdefault(pid, rank)
        if rank not in self._ranks and len(self._ranks) >= MAX_RANKS:
            return
        # A more exact figure of the same rank is not replaced by a rounded one of the same quantity.
        known = self._ranks.setdefault(rank, {}).get(name)
        if known is not None and round(known, 2) == value:
            return
        self._ranks[rank][name] = value
        self._lines[rank, name] = evidence

    def _engine_value(self, name: str, value: float, evidence: Evidence) -> None:
        known = self._engine.get(name)
        # Engines of one server (data parallel, or one line per rank) may differ; the smallest capacity counts.
        if known is None or (value > known if name in LARGEST else value < known):
            self._engine[name] = value
            self._engine_lines[name] = evidence

    def reduce(self) -> tuple[Facts, dict[str, Facts], dict[str, Evidence], dict[str, str]]:
        """Return overall facts, facts per rank, the evidence of each overall fact, and what was derived and how."""
        derived: dict[str, str] = {}
        ranks = {rank: dict(facts) for rank, facts in self._ranks.items()}
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
                    if (rank, name) in self._lines:
                        evidence[name] = self._lines[rank, name]
        overall.update(self._engine)
        evidence.update(self._engine_lines)
        return overall, ranks, evidence, derived
