"""A complete start-up of the V0 engine, 0.4.2 to 0.10.2: the driver is rank 0 and prints no prefix."""

import math

from tests.golden import setup as setups
from tests.golden.catalogue import Value, at_least, between, pick, record, render
from tests.golden.figures import Figures, draw
from tests.golden.framing import LogWriter, Process
from tests.golden.session import Session
from tests.golden.setup import Setup
from tests.golden.startup import Wish, serve_http

_BARS = "Loading safetensors checkpoint shards"


class V0Start:
    """One start-up of the V0 engine; `ray` puts the second rank on another host."""

    def __init__(
        self, name: str, version: str, setup: Setup, wish: Wish | None = None, *, ray: bool = False, device: str = "GPU"
    ) -> None:
        self.name = name
        self.version = version
        self.wish = wish or Wish()
        self.figures = draw(name, version, setup.world, self.wish.awkward, with_graph=not setup.eager)
        given = self.figures[0].utilization
        self.setup = setup.with_utilization(given)
        self.log = Session(version, LogWriter(version, debug=self.wish.debug, outer=self.wish.outer))
        self.api = setups.api_process(version)
        self.device = device
        driver = Process(None, 77, "TP0")
        self.workers = [driver]
        for rank in range(1, setup.world):
            if ray:
                self.workers.append(Process("RayWorkerWrapper", 1400 + rank, f"TP{rank}", f"10.0.0.{rank + 1}"))
            else:
                self.workers.append(Process("VllmWorkerProcess", 1400 + rank, f"TP{rank}"))
        self.block = setup.block or 16
        self.token_gib = (0.1875 if setup.kv_dtype == "auto" else 0.09375) / 1024 / setup.world

    def at_least(self, first: str) -> bool:
        """Compare this start-up's version."""
        return at_least(self.version, first)

    def each(self) -> list[tuple[Process, Figures]]:
        """Return the workers with their figures."""
        return list(zip(self.workers, self.figures, strict=True))

    def run(self) -> Session:
        """Write the whole start-up."""
        self.announce()
        self.configure()
        self.load()
        self.profile()
        self.size_cache()
        self.capture()
        self.serve()
        return self.log

    def announce(self) -> None:
        """Write platform, version and arguments."""
        log = self.log
        if log.say("life.platform", Process(None, 1), {"platform": self.wish.platform}):
            log.platform = self.wish.platform
        log.say("life.version", self.api, {"vllm_version": self.version})
        log.shown_version = self.version
        if self.wish.brief:
            return
        if self.at_least("0.9.0"):
            text, told = setups.non_default(self.setup)
            log.say_record("life.args.2", self.api, {"args": text})
        else:
            text, told = setups.namespace(self.setup)
            log.say_record("life.args.1", self.api, {"args": text})
        log.settings |= told

    def configure(self) -> None:
        """Write the engine's configuration line."""
        log, setup = self.log, self.setup
        log.writer.wait(6)
        if self.wish.brief:
            return
        log.say("life.arch", self.api, {"architecture": setup.architecture})
        log.say("life.max_len", self.api, {"max_model_len": str(setup.length)})
        if setup.batched is not None and self.at_least("0.5.3"):
            log.say_record("life.chunked.1", self.api, {"max_num_batched_tokens": setup.batched})
        if setup.kv_dtype != "auto":
            log.say("cfg.kv_dtype", self.api)
        for identifier, values in self.wish.noise:
            noise = render(record(identifier), values).text
            log.writer.record(self.api, "WARNING", record(identifier).file, noise)
        text, told = setups.engine_config(setup, self.version, "V0")
        log.writer.record(self.workers[0], "INFO", "vllm/engine/llm_engine.py", text, 234)
        log.settings |= told

    def load(self) -> None:
        """Write how the model was loaded."""
        log = self.log
        log.writer.wait(3)
        for worker, _ in self.each():
            if self.setup.world > 1:
                log.note(worker, "vLLM is using nccl==2.21.5", file="vllm/distributed/pynccl.py")
        for worker, _ in self.each():
            if self.at_least("0.5.3"):
                log.say_record("weights.start.1", worker, {"model": self.setup.model})
        if self.at_least("0.5.3") and not self.wish.brief:
            log.writer.bar(self.workers[0], _BARS, 8, glued=False)
        log.writer.wait(12)
        group = "weights.model_loading_took" if self.at_least("0.8.3") else "weights.v0_loading_gb"
        for worker, figures in self.each():
            values: dict[str, Value] = {"weights_gib": figures.weights, "model_load_seconds": figures.load_seconds}
            log.say(group, worker, values)

    def profile(self) -> None:
        """Write the profiling record: one line in 0.6.4, three lines from 0.6.5, nothing before."""
        for worker, figures in reversed(self.each()):
            self.log.say(
                "prof.v0_multiline" if self.at_least("0.6.5") else "prof.v0_0_6_4",
                worker,
                {
                    "profile_seconds": figures.profile_seconds,
                    "device_total_gib": figures.total,
                    "used_at_start_gib": figures.total - figures.free,
                    "torch_peak_gib": figures.weights + figures.activation,
                    "used_after_profile_gib": figures.weights + 0.02,
                    "utilization_ratio": figures.utilization,
                    "requested_gib": figures.requested,
                    "weights_gib": figures.weights,
                    "non_torch_gib": figures.non_torch,
                    "activation_gib": figures.activation,
                    "kv_cache_gib": figures.kv,
                },
            )

    @property
    def blocks(self) -> int:
        """Return the device blocks: what the smallest rank can hold."""
        return int(min(figures.kv for figures in self.figures) / (self.token_gib * self.block))

    def size_cache(self) -> None:
        """Write the blocks on device and host, and the concurrency."""
        log = self.log
        values: dict[str, Value] = {
            "device": "CUDA" if not self.at_least("0.8.0") else "cuda",
            "kv_cache_blocks": self.blocks,
            "cpu_blocks": int(4 / (self.token_gib * self.block)),
            "concurrency_tokens": str(self.setup.length),
            "max_concurrency": self.blocks * self.block / self.setup.length,
        }
        if self.at_least("0.7.0"):
            log.say_record("prof.blocks_v0_gpu.6", self.workers[0], values)
        else:
            number = {"GPU": 2, "TPU": 3, "HPU": 5}[self.device]
            log.say_record(f"prof.blocks_v0_gpu.{number}", self.workers[0], values)
        log.say("prof.max_conc", self.workers[0], values)

    def capture(self) -> None:
        """Write graph capture on every rank."""
        log = self.log
        if self.setup.eager:
            return
        starts = [number for number in range(1, 6) if pick_start(number, self.version)]
        for worker, _ in self.each():
            for number in starts if not self.wish.brief else ():
                log.say_record(f"graph.v0_start.{number}", worker)
        log.writer.wait(14)
        if self.at_least("0.6.6"):
            log.writer.bar(self.workers[0], "Capturing CUDA graph shapes", 35, glued=True)
        for worker, figures in reversed(self.each()):
            values: dict[str, Value] = {
                "graph_capture_seconds": figures.capture_seconds,
                "cuda_graph_gib": figures.graph,
            }
            log.say("graph.finished", worker, values)

    def serve(self) -> None:
        """Write the engine's time and the HTTP server's lines."""
        seconds = self.figures[0].profile_seconds + self.figures[0].capture_seconds + math.pi
        self.log.say("init.engine", self.workers[0], {"engine_init_seconds": seconds})
        serve_http(self.log, self.api)


def pick_start(number: int, version: str) -> bool:
    """Say whether a version announces graph capture with this text."""
    ranges = {1: ("0.4.2", "0.6.3.post1"), 2: ("0.4.2", "0.6.3.post1"), 3: ("0.6.4", "0.6.5"), 4: ("0.6.4", "0.6.5")}
    first, last = ranges.get(number, ("0.6.6", "0.10.2"))
    return between(first, version, last) and pick("graph.v0_start", version) is not None
