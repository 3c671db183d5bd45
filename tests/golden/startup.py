"""A complete start-up of the V1 engine on CUDA devices, 0.6.4 to 0.33.0, in the order in which vLLM prints it."""

from tests.golden import setup as setups
from tests.golden.catalogue import Value, at_least, between, record, render
from tests.golden.framing import Process
from tests.golden.session import Session
from tests.golden.v1_memory import V1Memory, Wish

__all__ = ["V1Start", "Wish", "serve_http"]
_BANNER = (
    "",
    "       █     █     █▄   ▄█",
    " ▄▄ ▄█ █     █     █ ▀▄▀ █  version {version}",
    "  █▄█▀ █     █     █     █  model   {model}",
    "   ▀▀  ▀▀▀▀▀ ▀▀▀▀▀ ▀     ▀",
    "",
)
_NCCL = "vllm/distributed/device_communicators/pynccl.py"


class V1Start(V1Memory):
    """One start-up of the V1 engine; failing ones stop after some stage."""

    def run(self) -> Session:
        """Write the whole start-up."""
        for stage in (self.announce, self.configure, self.init_devices, self.load, self.profile, self.size_cache):
            stage()
        self.capture()
        self.serve()
        return self.log

    def announce(self) -> None:
        """Write platform, version and arguments."""
        log, alone = self.log, Process(None, 1)
        if log.say("life.platform", alone, {"platform": self.wish.platform}):
            log.platform = self.wish.platform
        if self.wish.as_json or (self.wish.brief and self.at_least("0.15.0")):
            log.say("life.version", self.api, {"vllm_version": self.version, "model": self.setup.model})
        elif self.at_least("0.15.0"):
            banner = "\n".join(_BANNER).format(version=self.version, model=self.setup.model)
            log.writer.record(self.api, "INFO", "vllm/entrypoints/serve/utils/api_utils.py", banner, 347)
        else:
            log.say("life.version", self.api, {"vllm_version": self.version})
        log.shown_version = self.version
        if self.wish.brief:
            return
        if self.at_least("0.9.0"):
            text, told = setups.non_default(self.setup, api_key=self.wish.api_key)
            log.say_record("life.args.2", self.api, {"args": text})
        else:
            text, told = setups.namespace(self.setup)
            log.say_record("life.args.1", self.api, {"args": text})
        log.settings |= told

    def configure(self) -> None:
        """Write what the configuration came to, and the engine's configuration line."""
        log, setup = self.log, self.setup
        log.writer.wait(4)
        log.say("life.arch", self.api, {"architecture": setup.architecture})
        log.say("life.max_len", self.api, {"max_model_len": str(setup.length)})
        batched, sequences = setup.batched or 8192, setup.sequences or 256
        usage: dict[str, Value] = {"usage": "OPENAI_API_SERVER"}
        tells = f"life.chunked.{3 if between('0.8.0', self.version, '0.11.0') else 4}"
        if self.at_least("0.8.0") and setup.batched is None:
            log.say_record(tells, self.api, {"max_num_batched_tokens": batched, **usage})
        defaults = self.at_least("0.11.1") and setup.sequences is None
        if defaults and log.say_record("life.chunked.5", self.api, {"max_num_seqs": sequences, **usage}):
            log.settings["max_num_seqs"] = sequences
        chunked = f"life.chunked.{6 if self.at_least('0.19.0') else 1}"
        log.say_record(chunked, self.api, {"max_num_batched_tokens": batched})
        log.settings["max_num_batched_tokens"] = batched
        if setup.kv_dtype != "auto":
            log.say("cfg.kv_dtype", self.api, {"cache_dtype": setup.kv_dtype, "str_cache_dtype": setup.kv_dtype})
        if setup.eager:
            log.say("graph.eager", self.api)
        log.writer.wait(9)
        if self.wish.brief:
            return
        for identifier, values in self.wish.noise:
            text = render(record(identifier), values).text
            log.writer.record(self.api, "WARNING", record(identifier).file, text)
        log.say("life.platform", Process(None, 1), {"platform": self.wish.platform})
        text, told = setups.engine_config(setup, self.version, "V1")
        log.writer.record(self.engines[0], "INFO", "vllm/v1/engine/core.py", text, 105)
        log.settings |= told

    def init_devices(self) -> None:
        """Write what the workers say before they load the model."""
        log, setup = self.log, self.setup
        log.writer.wait(7)
        if self.wish.brief:
            return
        early = [setups.before_groups(self.version, worker, setup) for worker in self.workers]
        if setup.world > 1:
            log.note(early[0], "vLLM is using nccl==2.27.5", file=_NCCL)
        for index, process in enumerate(early):
            data, place = divmod(index, setup.world)
            pipeline, tensor = divmod(place, setup.tensor)
            values: dict[str, Value] = {
                "world_size": str(setup.world),
                "rank": str(place),
                "dp_rank": str(data),
                "pp_rank": str(pipeline),
                "pcp_rank": "0",
                "tp_rank": str(tensor),
                "etp_rank": "0",
                "ep_rank": "N/A",
                "eplb_rank": "N/A",
            }
            known = self._rank_record()
            if known and (index == 0 or not self.at_least("0.17.0")):
                log.say_record(known, process, values)
        for process, worker, figures in zip(early, self.workers, self.figures, strict=True):
            self._snapshot(process, worker.rank, figures)

    def _rank_record(self) -> str | None:
        ranges = {2: ("0.8.0", "0.8.5"), 3: ("0.9.0", "0.11.0"), 4: ("0.11.1", "0.11.2"), 6: ("0.12.0", "0.16.0")}
        ranges |= {7: ("0.17.0", "0.29.0"), 8: ("0.30.0", "0.33.0")}
        found = [number for number, (first, last) in ranges.items() if between(first, self.version, last)]
        return f"life.rank.{found[0]}" if found else None

    def load(self) -> None:
        """Write how the model was loaded."""
        log = self.log
        log.writer.wait(3)
        if not log.writer.debug:
            for worker, figures in self.each():
                self._external(worker, figures)
        log.say("weights.start", self.workers[0], {"model": self.setup.model})
        if not self.wish.brief:
            self._read_checkpoint()
        for index, (worker, figures) in enumerate(self.each()):
            values: dict[str, Value] = {"weights_gib": figures.weights, "model_load_seconds": figures.load_seconds}
            if self._first_of_node(index, once=self.at_least("0.11.1") and not self.second_runner):
                self._model_loading(worker, values)

    def _read_checkpoint(self) -> None:
        log = self.log
        model_files = "vllm/model_executor/model_loader/weight_utils.py"
        log.note(self.workers[0], "Using model weights format ['*.safetensors']", file=model_files)
        if self.at_least("0.32.0"):
            log.say("weights.init_model_seconds", self.workers[0], {"model_init_seconds": 0.129979})
        log.writer.bar(self.workers[0], "Loading safetensors checkpoint shards", 8, glued=False)
        once = self.at_least("0.11.1")
        for index, (worker, figures) in enumerate(self.each()):
            if index == 0 or not once:
                log.say("weights.load_seconds", worker, {"checkpoint_read_seconds": figures.read_seconds})
                log.say("weights.peak_after_load", worker, {"load_peak_gib": figures.weights + 0.06})

    def _model_loading(self, worker: Process, values: dict[str, Value]) -> None:
        group = "weights.model_loading_took" if self.at_least("0.8.0") else "weights.v0_loading_gb"
        self.log.say(group, worker, values, every_rank=self.second_runner)

    def serve(self) -> None:
        """Write the end of the start-up: the engine's time, the blocks, the routes, readiness."""
        log = self.log
        log.writer.wait(2)
        seconds = self.figures[0].load_seconds * 0.7 + self.figures[0].compile_seconds + 3.1
        compiled: dict[str, Value] = {"engine_init_seconds": seconds, "engine_compile_seconds": seconds * 0.3}
        for engine in self.engines:
            if self.at_least("0.20.0") and self.wish.encoder_tokens:
                parts: dict[str, Value] = {"language_model_compile_seconds": 20.5, "encoder_compile_seconds": 4.25}
                log.say_record("init.engine.4", engine, compiled | parts)
            elif self.at_least("0.20.0") and not self.setup.eager:
                log.say_record("init.engine.5", engine, compiled)
            else:
                log.say("init.engine", engine, compiled)
        blocks = "prof.num_gpu_blocks"
        for index in range(self.setup.data):
            values: dict[str, Value] = {"engine": index, "kv_cache_blocks": self.blocks(index)}
            if self.at_least("0.11.1"):
                log.say_record(f"{blocks}.4", self.api, values)
            else:
                log.say(blocks, self.api, values)
        serve_http(log, self.api)


def serve_http(log: Session, api: Process) -> None:
    """Write the HTTP server's lines, up to readiness and the first requests."""
    log.say(
        "life.start_server",
        api,
        {"address": "0.0.0.0", "port": 8000, "tls": "", "api_server": 0, "listen_address": "http://0.0.0.0:8000"},
    )
    log.say("life.routes", api)
    for path in ("/health", "/v1/models"):
        if at_least(log.version, "0.5.3"):
            log.say_record("life.routes.2", api, {"path": path, "methods": "GET"})
    log.writer.uvicorn(api, f"Started server process [{api.pid}]")
    log.writer.uvicorn(api, "Waiting for application startup.")
    log.writer.uvicorn(api, "Application startup complete.")
    if not at_least(log.version, "0.7.3"):
        log.writer.uvicorn(api, "Uvicorn running on http://0.0.0.0:8000 (Press CTRL+C to quit)")
    log.writer.uvicorn(api, '10.0.0.7:51234 - "GET /health HTTP/1.1" 200 OK')
    log.ready = True
