"""One start-up while its lines come in: settings, stages, facts, and whether it is over."""

import math
from collections.abc import Callable

from orchestrator.vllm_log.checks import identity_checks
from orchestrator.vllm_log.diagnosis import Diagnosis, Known
from orchestrator.vllm_log.evidence import proof_of
from orchestrator.vllm_log.framing import Line, rank_of
from orchestrator.vllm_log.ledger import Ledger, Place
from orchestrator.vllm_log.marks import (
    ASSIGNED,
    DATA_RANK,
    ENGINE_START,
    ENGINE_UP,
    GLOBAL_RANK,
    GRAPH_ESTIMATE,
    NEEDLES,
    PLATFORM,
    PLATFORM_OF_PLUGIN,
    START,
    VERSION,
    Mark,
)
from orchestrator.vllm_log.meaning import meaning_of
from orchestrator.vllm_log.phases import MOST_PHASES, read_peak, read_phase
from orchestrator.vllm_log.result import StartUp
from orchestrator.vllm_log.rules import Rules
from orchestrator.vllm_log.settings import Setting, read_settings
from orchestrator.vllm_log.wordings import MIB, WEIGHTS, Stage, Wording

MAX_ENGINES = 256
# Name and value of an event, and the figure of a fact.
Told = tuple[str, str, float | None]
_TOKENS = "kv_cache_tokens"


class StartUpReader:
    """Reads the lines of one start-up in order; `result()` says at any time what is known."""

    def __init__(self, number: int, *, simulated: bool = False) -> None:
        self._number = number
        self.simulated = simulated
        self._version: str | None = None
        self._platform: str | None = None
        self._ready = False
        self._engine_up = False
        self._engines: dict[str, str | None] = {}
        self._cores: dict[str, str] = {}
        self._started: set[str | None] = set()
        self._began: set[tuple[str | None, str | None]] = set()
        self._settings: dict[str, Setting] = {}
        self._graph_estimate_applied: bool | None = None
        self._profiling_skipped = False
        self._phases: dict[str, dict[str, float]] = {}
        self._bare_stage = Stage.CONFIG
        self._last: Line | None = None
        self._draft = False
        self._ledger = Ledger()
        self._diagnosis = Diagnosis()
        self._on: dict[Mark, Callable[[Line], None]] = {
            Mark.VERSION: self._on_version,
            Mark.PLATFORM: self._on_platform,
            Mark.ENGINE_START: self._on_engine_start,
            Mark.LOADING: self._on_loading,
            Mark.CAPTURING: self._on_capturing,
            Mark.ENGINE_UP: self._on_engine_up,
            Mark.READY: self._on_ready,
            Mark.TRACEBACK: self._on_traceback,
            Mark.FRAME: self._on_frame,
            Mark.SETTING: self._on_setting,
            Mark.GRAPH_ESTIMATE: self._on_graph_estimate,
            Mark.RANK: self._on_rank,
            Mark.DRAFT: self._on_draft,
            Mark.PHASE: self._on_phase,
        }

    def ends_before(self, line: Line, rules: Rules) -> bool:
        """Say whether this line begins another start-up: a new server, or an engine of a name that had its start.

        Words copied without their frame have neither: there, a figure of an earlier stage begins another one.
        """
        if line.bare and self._begins_bare(line, rules):
            return True
        if rules.wordings and (line.process or "").startswith("EngineCore"):
            # The same engine under another pid: it was started again, whatever the log left out in between.
            pid = self._cores.get(line.process or "")
            if pid not in {None, line.pid} and (self._diagnosis.failed or self._told_before(line, rules, pid or "")):
                return True
        if not (self._ready or self._engine_up or self._diagnosis.failed):
            # A start-up that was killed without a word: the same process cannot begin twice.
            return rules.starts and (line.process, line.pid) in self._began and bool(START.search(line.words))
        if not rules.starts:
            return bool(rules.wordings) and self._loads_again(line, rules)
        if START.search(line.words):
            return True
        if not ENGINE_START.search(line.words):
            return False
        known = self._engines.get(line.process or "", line.pid)
        return known != line.pid or (line.process is None and "" in self._engines)

    def _told_before(self, line: Line, rules: Rules, pid: str) -> bool:
        """Say whether a line tells a figure that the only engine has told under an earlier pid.

        Data-parallel engines and the stages of one server stand side by side, some of them under one name.
        """
        if line.process != "EngineCore" or "[Stage-" in line.text or line.pid in self._started:
            return False
        told = (name for one in rules.wordings for name, _, _ in one.template.read(line.words))
        return any(self._ledger.tells(name, pid) for name in told)

    def _loads_again(self, line: Line, rules: Rules) -> bool:
        """Say whether a rank that has loaded its weights loads them in another process: somebody cut out the start."""
        rank = rank_of(line.process)
        if rank is None or not self._ledger.has("weights_gib", rank, but_not_of=line.pid):
            return False
        return any(name == "weights_gib" for one in rules.wordings for name, _, _ in one.template.read(line.words))

    def _begins_bare(self, line: Line, rules: Rules) -> bool:
        if self._bare_stage > _bare_stage(line, rules) > Stage.CONFIG:
            return True
        known = self._ledger.engine("kv_cache_tokens")
        if known is None:
            return False
        told = [value for one in rules.wordings for name, value, _ in one.template.read(line.words) if name == _TOKENS]
        return any(value != known for value in told)

    def read(self, line: Line, rules: Rules) -> list[Told]:
        """Read a line by the rules of its anchors; returns what it told, in order."""
        told: list[Told] = []
        before = self._diagnosis.stage
        self._ledger.name(line.pid, rank_of(line.process))
        if line.process in ("EngineCore_DP0", "EngineCore_0"):
            self._ledger.name_first_engine(line.pid)
        if line.process is not None and line.pid is not None and len(self._cores) < MAX_ENGINES:
            self._cores.setdefault(line.process, line.pid)
        # A server that is ready has told its figures; what it prints now are requests, and their errors.
        for wording in () if self._ready else rules.wordings:
            if wording.template.needle in line.words:
                self._figures(wording, self._owned(line), told)
        self._last = self._owned(line)
        was_ready = self._ready
        for mark in rules.marks:
            self._on[mark](line)
        if self._ready and not was_ready:
            told.append(("ready", "", None))
        if self._diagnosis.stage is not before:
            told.append(("stage", self._diagnosis.stage.name.lower(), None))
        if (rules.causes or rules.deadly) and not (rules.frame and self._diagnosis.frame(line)):
            kind = self._diagnosis.read(line, rules.causes, deadly=rules.deadly)
            if kind is not None:
                told.append(("failure", kind, None))
        return told

    def _owned(self, line: Line) -> Line:
        """Return the line as one of the process before it where it is the rest of a record that a terminal broke."""
        last = self._last
        if last is None or not line.bare or line.number != last.number + 1:
            return line
        return line._replace(process=last.process, pid=last.pid)

    def _figures(self, wording: Wording, line: Line, told: list[Told]) -> None:
        figures = wording.template.read(line.words)
        if not figures:
            return
        given = {name: value for name, value, _ in figures}
        # Bytes have no unit behind them, so that cut digits would pass for a number.
        if wording.scale < MIB and given.get("device_total_gib", math.inf) < given.get("kv_cache_gib", -math.inf):
            figures = [figure for figure in figures if figure[0] != "device_total_gib"]
        proof = proof_of(line)
        for name, value, _ in figures:
            if wording.reached is not None:
                self._diagnosis.enter(wording.reached)
                if line.bare:
                    self._bare_stage = max(self._bare_stage, wording.reached)
            if not name:
                continue
            gib = value * wording.scale
            if wording.in_passing:
                self._ledger.put_in_passing(name, gib, proof)
            elif self._draft and wording in WEIGHTS and name == "weights_gib":
                # V0 loads the draft model after the other one, each with a line of its own.
                if ("fact", name, gib) not in told:
                    self._ledger.add(name, gib, line.pid, proof)
            else:
                self._ledger.put(name, gib, line.pid, proof)
            if ("fact", name, gib) not in told:
                told.append(("fact", name, gib))
        if wording.given:
            self._profiling_skipped = True

    def _on_version(self, line: Line) -> None:
        if len(self._began) < MAX_ENGINES and START.search(line.words):
            self._began.add((line.process, line.pid))
        if self._version is None and (match := VERSION.search(line.words)):
            self._version = match.group(1).rstrip(".")

    def _on_platform(self, line: Line) -> None:
        if match := PLATFORM.search(line.words):
            plugin = match.group(2)
            self._platform = PLATFORM_OF_PLUGIN.get(plugin, plugin) if plugin else match.group(1)

    def _on_engine_start(self, line: Line) -> None:
        if ENGINE_START.search(line.words) and len(self._engines) < MAX_ENGINES:
            self._engines[line.process or ""] = line.pid
            self._started.add(line.pid)

    def _on_setting(self, line: Line) -> None:
        self._settings.update(read_settings(line.words))

    def _on_graph_estimate(self, line: Line) -> None:
        if match := GRAPH_ESTIMATE.search(line.words):
            self._graph_estimate_applied = match.group(1) == "enabled"

    def _on_traceback(self, line: Line) -> None:
        if _says(Mark.TRACEBACK, line.words):
            self._diagnosis.traceback(line)

    def _on_frame(self, line: Line) -> None:
        self._diagnosis.frame(line)

    def _on_loading(self, line: Line) -> None:
        if _says(Mark.LOADING, line.words):
            self._diagnosis.enter(Stage.LOAD)

    def _on_capturing(self, line: Line) -> None:
        if _says(Mark.CAPTURING, line.words):
            self._diagnosis.enter(Stage.GRAPH_CAPTURE)

    def _on_engine_up(self, line: Line) -> None:
        if ENGINE_UP.search(line.words):
            self._engine_up = True

    def _on_ready(self, line: Line) -> None:
        if not self._ready and _says(Mark.READY, line.words):
            self._ready = True
            self._diagnosis.came_up()

    def _on_rank(self, line: Line) -> None:
        if match := ASSIGNED.search(line.words):
            self._ledger.assign(line.pid, Place(*(int(group or 0) for group in match.groups())))
        elif match := GLOBAL_RANK.search(line.words):
            world, rank = int(match.group(1)), int(match.group(2))
            size = self._whole("tensor_parallel_size") or world
            if size > 1 and rank < world:
                self._ledger.assign(line.pid, Place(0, rank // size, 0, rank % size))
        elif match := DATA_RANK.search(line.words):
            rank = int(match.group(1))
            size = self._whole("tensor_parallel_size") or 1
            engine = size * (self._whole("pipeline_parallel_size") or 1)
            self._ledger.assign(line.pid, Place(rank // engine, rank % engine // size, 0, rank % size))

    def _on_draft(self, line: Line) -> None:
        self._draft = self._draft or _says(Mark.DRAFT, line.words)

    def _on_phase(self, line: Line) -> None:
        if found := read_phase(line.words):
            moment, quantity, gib = found
            if moment in self._phases or len(self._phases) < MOST_PHASES:
                self._phases.setdefault(moment, {})[quantity] = gib
            if (moment, quantity) == ("after profiling", "non_torch_memory_gib"):
                self._ledger.put("non_torch_gib", gib, line.pid, proof_of(line))
            if line.bare:
                self._bare_stage = max(self._bare_stage, _stage_of_moment(moment))
        elif (peak := read_peak(line.words)) is not None and self._phases:
            self._phases[next(reversed(self._phases))]["peak_activation_memory_gib"] = peak

    def _whole(self, name: str) -> int | None:
        value = self._settings.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def result(self, *, replaced: bool = False) -> StartUp:
        """Return the start-up as far as the log has told it; `replaced` says that another one follows in the log."""
        sums = self._ledger.close()
        up = self._ready or self._engine_up
        known = Known(
            up=up,
            facts=sums.overall,
            kv_line=sums.evidence.get("kv_cache_gib"),
            rank_of=self._ledger.rank_of,
            tensor_parallel_size=self._whole("tensor_parallel_size"),
            block_size=self._whole("block_size"),
        )
        start_up = StartUp(
            number=self._number,
            vllm_version=self._version,
            platform=self._platform,
            simulated=self.simulated,
            engine_ready=True if up else (False if self._diagnosis.failed or replaced else None),
            failure=self._diagnosis.conclude(known),
            facts=sums.overall,
            ranks=sums.ranks,
            derived=sums.derived,
            evidence=sums.evidence,
            settings=dict(self._settings),
            phases={moment: dict(figures) for moment, figures in self._phases.items()},
        )
        start_up.meaning = meaning_of(
            start_up, estimate_applied=self._graph_estimate_applied, profiling_skipped=self._profiling_skipped
        )
        start_up.checks = identity_checks(start_up)
        return start_up


def _says(mark: Mark, words: str) -> bool:
    return any(needle in words for needle in NEEDLES[mark])


def _bare_stage(line: Line, rules: Rules) -> Stage:
    """Return the stage that a line copied without its frame belongs to; CONFIG when it tells none."""
    for wording in rules.wordings:
        if wording.reached is not None and not wording.in_passing and wording.template.pattern.search(line.words):
            return wording.reached
    if (found := read_phase(line.words)) is not None:
        return _stage_of_moment(found[0])
    return Stage.CONFIG


def _stage_of_moment(moment: str) -> Stage:
    """Return the stage of a moment: `before init HCCL` comes before the weights, all others after."""
    return Stage.LOAD if "init" in moment else Stage.PROFILE
