"""What the V1 engine says of memory: snapshots, the profile run, the KV cache, graphs and the summary."""

import math
from dataclasses import dataclass, field

from tests.golden import setup as setups
from tests.golden.catalogue import GIB, Value, at_least, record, render
from tests.golden.figures import Awkward, Figures, draw, subtracts_estimate
from tests.golden.framing import LogWriter, Process
from tests.golden.session import UNKNOWN_RANK, Session
from tests.golden.setup import Setup


@dataclass(frozen=True)
class Wish:
    """What a case asks for beside its version and settings."""

    debug: bool = False
    as_json: bool = False
    awkward: Awkward = field(default_factory=Awkward)
    outer: str = ""
    encoder_tokens: int | None = None
    platform: str = "cuda"
    graphs: bool = True
    startup_plan: bool = False
    cached: bool = False
    api_key: str | None = None
    brief: bool = False
    v2_runner: bool = False
    plan_refused: bool = False
    fits: int | None = None
    noise: tuple[tuple[str, dict[str, Value]], ...] = ()


class V1Memory:
    """The part of a V1 start-up that speaks of memory."""

    def __init__(self, name: str, version: str, setup: Setup, wish: Wish | None = None) -> None:
        self.name = name
        self.version = version
        self.wish = wish or Wish()
        self.figures = draw(
            name, version, setup.world * setup.data, self.wish.awkward, with_graph=self.wish.graphs and not setup.eager
        )
        usual = 0.92 if at_least(version, "0.20.0") else 0.9
        given = self.figures[0].utilization
        self.setup = setup.with_utilization(None if math.isclose(given, usual) else given)
        writer = LogWriter(version, debug=self.wish.debug, as_json=self.wish.as_json, outer=self.wish.outer)
        self.log = Session(version, writer)
        self.api = setups.api_process(version)
        self.engines = setups.engine_processes(version, self.setup)
        self.workers = setups.workers(version, self.setup, self.engines)
        self.block = setup.block or 16
        self.token_gib = (0.1875 if setup.kv_dtype == "auto" else 0.09375) / 1024 / setup.world

    @property
    def device_word(self) -> str:
        """Return what the size line calls the device from 0.30.0."""
        return "GPU"

    @property
    def second_runner(self) -> bool:
        """Say whether the second model runner is used: every rank prints."""
        return self.wish.v2_runner or at_least(self.version, "0.29.0")

    def at_least(self, first: str) -> bool:
        """Compare this start-up's version."""
        return at_least(self.version, first)

    def each(self) -> list[tuple[Process, Figures]]:
        """Return the workers with their figures."""
        return list(zip(self.workers, self.figures, strict=True))

    def _first_of_node(self, index: int, *, once: bool) -> bool:
        """Say whether a rank prints a line of `info_once`: the first of each engine."""
        return not once or index % self.setup.world == 0

    def _snapshot(self, process: Process, rank: str | None, figures: Figures) -> None:
        """Write the DEBUG snapshot of 0.14.0 and later; a rank without a prefix cannot be told apart."""
        log = self.log
        values: dict[str, Value] = {
            "device_free_gib": figures.free,
            "device_total_gib": figures.total,
            "device": "cuda",
            "snapshot_torch_peak_gib": 0.0,
            "snapshot_torch_allocated_gib": 0.0,
            "snapshot_used_gib": figures.total - figures.free,
            "snapshot_torch_gib": 0.0,
            "snapshot_non_torch_gib": figures.total - figures.free,
            "timestamp": "1776816227.5468106",
            "auto_measure": "True",
        }
        if not (log.writer.debug and self.at_least("0.14.0")):
            return
        number = 1 if not self.at_least("0.15.0") else 3 if not self.at_least("0.27.0") else 4
        inner = record(f"prof.snapshot.{number}")
        text = render(inner, values)
        log.say_record("prof.snapshot.2", process, {"snapshot": text.text})
        known = rank or "TP0"
        if process.name is None and self.setup.world > 1:
            known = UNKNOWN_RANK
        log.say("prof.requested", process, {"requested_gib": figures.requested}, rank=known)
        log.book(text.figures, known)
        self._external(process, figures)

    def _external(self, process: Process, figures: Figures) -> None:
        if not figures.external:
            return
        self.log.say(
            "prof.external_weights",
            process,
            {
                "requested_gib": figures.requested,
                "external_weights_gib": figures.external,
                "engine_budget_gib": figures.requested - figures.external,
            },
        )

    def profile(self) -> None:
        """Write compilation, the profile run and what it left for the KV cache."""
        log, wish = self.log, self.wish
        log.writer.wait(20)
        if wish.encoder_tokens is not None:
            for worker in self.workers[: 1 if self.at_least("0.11.1") else None]:
                items = {"encoder_items": "1", "modality": "image"}
                tokens = wish.encoder_tokens if self.at_least("0.8.5") else str(wish.encoder_tokens)
                log.say("mm.encoder_cache", worker, {"encoder_cache_tokens": tokens, **items})
        if not self.setup.eager and wish.graphs and not wish.brief:
            self._compile()
        if wish.plan_refused:
            for worker, figures in self.each():
                refused: dict[str, Value] = {"device_free_gib": figures.free, "plan_free_gib": figures.free + 1.5}
                log.say_record("prof.startup_plan.5", worker, refused)
        if wish.startup_plan:
            self._plan()
        elif self.setup.kv_bytes is not None:
            for worker, figures in self.each():
                reserved = self.setup.kv_bytes / GIB
                log.say("prof.kv_bytes_mode", worker, {"device_free_gib": figures.free, "kv_cache_gib": reserved})
        else:
            self._profile_run()

    def _plan(self) -> None:
        for worker, figures in self.each():
            reserved = self.kv_of(figures)
            self.log.say_record(
                "prof.startup_plan.1",
                worker,
                {
                    "fingerprint": "9f1c2d77e0ab4c15",
                    "kv_cache_gib": reserved,
                    "plan_free_gib": figures.free - 0.02,
                    "device_free_gib": figures.free,
                },
            )

    def _compile(self) -> None:
        log = self.log
        cached = self.wish.cached
        for index, (worker, figures) in enumerate(self.each()):
            if not self._first_of_node(index, once=self.at_least("0.11.1")):
                continue
            part = "[backbone] " if self.at_least("0.32.0") else ""
            log.say("compile.dynamo", worker, {"part": part, "dynamo_seconds": figures.compile_seconds * 0.2})
            seconds: dict[str, Value] = {"compile_seconds": figures.compile_seconds}
            if not self.at_least("0.18.0"):
                log.say("compile.total", worker, seconds)
            elif cached:
                log.say("compile.total_together", worker, seconds)
            else:
                log.say("compile.total_took", worker, seconds)
                log.say("compile.initial", worker, {"part": part, "warm_up_seconds": 0.87})

    def _profile_run(self) -> None:
        log = self.log
        for index, (worker, figures) in enumerate(self.each()):
            graphs = figures.estimate > 0
            if graphs and self.at_least("0.18.0"):
                log.say("graph.profiling", worker, {"graph_sizes": "PIECEWISE=51 (largest=512), FULL=51 (largest=512)"})
                detail: dict[str, Value] = {"graph_mode": "FULL", "first_capture_mib": 258.0, "graphs": 51}
                log.say_record("graph.estimated_detail.1", worker, {**detail, "per_graph_mib": 2.0})
                log.say("graph.estimated", worker, {"cuda_graph_estimated_gib": figures.estimate})
            self._profile_debug(worker, figures)
            if self._first_of_node(index, once=self.at_least("0.11.1")):
                log.say("prof.available_kv", worker, {"kv_cache_gib": figures.kv})
            if graphs and self.at_least("0.18.0") and not self.wish.brief:
                self._advice(worker, figures)

    def _profile_debug(self, worker: Process, figures: Figures) -> None:
        log = self.log
        log.say(
            "prof.initial_free",
            worker,
            {
                "device_free_gib": figures.free,
                "free_after_profile_gib": figures.free_after,
                "utilization_ratio": figures.utilization,
                "requested_gib": figures.requested,
            },
        )
        within = figures.free_after - (figures.free - figures.requested)
        log.say(
            "prof.free_after", worker, {"free_after_profile_gib": figures.free_after, "free_in_request_gib": within}
        )
        log.say(
            "prof.v1_repr",
            worker,
            {
                "profile_seconds": figures.profile_seconds,
                "non_kv_cache_gib": figures.consumed + figures.activation,
                "activation_gib": figures.activation,
                "torch_peak_increase_gib": figures.activation + 0.21,
                "non_torch_gib": figures.non_torch,
                "consumed_gib": figures.consumed,
                "weights_gib": figures.weights,
            },
        )

    def _advice(self, worker: Process, figures: Figures) -> None:
        share = figures.estimate / figures.total
        values: dict[str, Value] = {
            "utilization_now": figures.utilization,
            "utilization_equal": figures.utilization - share,
            "utilization_more": figures.utilization + share,
        }
        self.log.say_record(f"graph.advice.{4 if subtracts_estimate(self.version) else 2}", worker, values)

    def kv_of(self, figures: Figures) -> float:
        """Return the KV cache of a rank."""
        return self.setup.kv_bytes / GIB if self.setup.kv_bytes is not None else figures.kv

    def blocks(self, engine: int) -> int:
        """Return the blocks of one engine: what its smallest rank can hold."""
        ranks = self.figures[engine * self.setup.world : (engine + 1) * self.setup.world]
        return int(min(self.kv_of(figures) for figures in ranks) / (self.token_gib * self.block))

    def size_cache(self) -> None:
        """Write the engine's sizes: once for every rank until 0.11.0, on one line from 0.28.0."""
        log, length = self.log, self.wish.fits or self.setup.length
        log.writer.wait(1)
        for index, engine in enumerate(self.engines):
            if self.wish.fits:
                fitted: dict[str, Value] = {"derived_max_model_len": self.setup.length, "max_model_len": length}
                log.say_record(
                    "prof.autofit.3", engine, {**fitted, "available_gib": str(round(self.kv_of(self.figures[0]), 2))}
                )
                log.settings["max_model_len"] = length
            blocks = self.blocks(index)
            concurrency = blocks / math.ceil(length / self.block)
            tokens = int(concurrency * length) if self.at_least("0.20.1") else blocks * self.block
            if not self.at_least("0.20.1"):
                concurrency = tokens / length
            values: dict[str, Value] = {
                "device": self.device_word,
                "kv_cache_tokens": tokens,
                "concurrency_tokens": length if self.at_least("0.8.0") else str(length),
                "max_concurrency": concurrency,
            }
            for _ in range(1 if self.at_least("0.11.1") else self.setup.world):
                if not self.at_least("0.8.0"):
                    log.say_record("prof.blocks_v0_gpu.4", engine, {"kv_cache_blocks": blocks})
                log.say("prof.kv_size", engine, values)
                if not self.at_least("0.28.0") and self.at_least("0.7.1"):
                    log.say("prof.max_conc", engine, values)

    def capture(self) -> None:
        """Write graph capture, and the summary of memory that follows it."""
        log = self.log
        log.writer.wait(5)
        if self.setup.eager or not self.wish.graphs:
            self._summaries()
            return
        title = "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE)"
        if not self.at_least("0.10.1"):
            title = "Capturing CUDA graph shapes"
        log.writer.bar(self.workers[0], title, 67, glued=True)
        for index, (worker, figures) in enumerate(self.each()):
            values: dict[str, Value] = {
                "graph_capture_seconds": figures.capture_seconds,
                "cuda_graph_gib": figures.graph,
            }
            if self._first_of_node(index, once=self.at_least("0.11.1") and not self.second_runner):
                log.say("graph.finished", worker, values, every_rank=self.second_runner)
        if self.at_least("0.18.0") and not self.wish.startup_plan and self.setup.kv_bytes is None:
            for worker, figures in self.each():
                difference = abs(figures.graph - figures.estimate)
                log.say(
                    "graph.pool",
                    worker,
                    {
                        "cuda_graph_gib": figures.graph,
                        "cuda_graph_estimated_gib": figures.estimate,
                        "graph_difference_gib": difference,
                        "graph_difference_percent": 100 * difference / max(figures.graph, 2**-30),
                    },
                )
        self._summaries()

    def _summaries(self) -> None:
        if self.setup.kv_bytes is not None or self.wish.startup_plan:
            return
        for worker, figures in self.each():
            spare = 0.146484375
            consumed = figures.consumed if self.at_least("0.27.0") else figures.weights + figures.non_torch
            used = consumed + figures.external + figures.activation + figures.graph + spare
            applied = figures.estimate if self.at_least("0.27.0") else 0.0
            self.log.say(
                "prof.suggest",
                worker,
                {
                    "device_free_gib": figures.free,
                    "device_total_gib": figures.total,
                    "utilization_ratio": str(figures.utilization),
                    "requested_gib": figures.requested,
                    "weights_gib": figures.weights,
                    "consumed_gib": figures.consumed,
                    "activation_gib": figures.activation + applied,
                    "non_torch_gib": figures.non_torch,
                    "cuda_graph_gib": figures.graph,
                    "suggested_in_request_gib": figures.requested - used,
                    "suggested_in_device_gib": figures.free - used,
                    "kv_cache_in_use_gib": figures.kv,
                },
            )
