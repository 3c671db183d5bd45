"""Start-ups on other devices: CPU, Intel XPU, Gaudi, TPU, and Ascend with its plugin."""

from dataclasses import replace

from tests.golden.catalogue import Printed, Value, at_least, record, render
from tests.golden.figures import Figures
from tests.golden.framing import Process
from tests.golden.session import Session
from tests.golden.setup import Setup
from tests.golden.startup import V1Start, Wish
from tests.golden.v0 import V0Start

_NUMA = {"numa_node": "0"}


class CpuStart(V1Start):
    """The CPU backend of 0.20.0 and later: a share of the node's memory, no weights, no graphs."""

    def __init__(self, name: str, version: str, setup: Setup, *, explicit: bool = False) -> None:
        super().__init__(name, version, replace(setup, eager=True, device="cpu"), Wish(graphs=False, platform="cpu"))
        self.explicit = explicit
        if self.setup.world == 1:
            self.workers = [Process("Worker", 460, "TP0")]
        small = [replace(item, weights=item.weights / 8, activation=0.0, non_torch=0.011) for item in self.figures]
        self.figures = [replace(item, kv=item.requested - item.consumed) for item in small]

    @property
    def device_word(self) -> str:
        """Return what the size line calls the device from 0.30.0."""
        return "CPU"

    def load(self) -> None:
        """Write the start of loading; the CPU runner does not say what the weights take."""
        self.log.writer.wait(3)
        self.log.say_record("weights.start.1", self.workers[0], {"model": self.setup.model})

    def profile(self) -> None:
        """Write how much memory is left for the KV cache."""
        self.log.writer.wait(2)
        for worker, figures in self.each():
            values: dict[str, Value] = {
                "kv_cache_gib": figures.kv,
                "device_total_gib": figures.total,
                "requested_gib": figures.requested,
                "non_kv_cache_gib": figures.consumed,
                **_NUMA,
            }
            self.log.say_record(f"prof.cpu_kv.{1 if self.explicit else 2}", worker, values)

    def capture(self) -> None:
        """Write nothing: there are no graphs and no summary of memory."""


class XpuStart(V1Start):
    """Intel XPU 0.9.2 to 0.15.1: sizes in "MB" that are MiB, and no line on the KV cache's size in bytes."""

    def profile(self) -> None:
        """Write the two profiling lines of every rank."""
        log = self.log
        log.writer.wait(4)
        # Free memory is told after loading, and the peak of torch stands for weights and activation together.
        log.optional |= {"free_after_profile_gib", "activation_gib", "device_free_gib"}
        for worker, figures in self.each():
            values: dict[str, Value] = {
                "device_total_gib": figures.total,
                "weights_gib": figures.weights,
                "free_after_load_gib": figures.free - figures.weights,
                "torch_peak_gib": figures.weights + figures.activation,
                "torch_gib": figures.weights,
                "non_torch_gib": figures.non_torch,
                "free_after_profile_gib": figures.free_after,
            }
            log.say_record("prof.xpu_mb.1", worker, values)
            log.say_record("prof.xpu_mb.2", worker, values)

    def _profile_run(self) -> None:
        self.profile()

    def capture(self) -> None:
        """Write nothing: no graphs on this device."""


class GaudiStart(V0Start):
    """Gaudi 0.6.4 to 0.9.2: sizes with their unit, blocks on the device and the host."""

    def load(self) -> None:
        """Write the weights as the Gaudi profiler sums them up."""
        log = self.log
        for worker, figures in self.each():
            share = f"({figures.weights:.4g} GiB/{figures.total:.4g} GiB used)"
            summary = f"{figures.weights:.4g} GiB of device memory {share} and "
            summary += "1.056 GiB of host memory (8.188 GiB/108.2 GiB used)"
            log.say("weights.hpu_loading", worker, {"weights_summary": summary})
            log.book({"weights_gib": Printed(float(f"{figures.weights:.4g}"), 2)}, worker.rank or "TP0")

    def profile(self) -> None:
        """Write what is usable, reserved for graphs, and left for the KV cache."""
        # Reserved for graphs is a setting, and free memory is told after the profile run.
        self.log.optional |= {"free_after_profile_gib", "requested_gib", "cuda_graph_gib", "graph_capture_seconds"}
        self.log.optional |= {"cuda_graph_estimated_gib", "device_total_gib", "device_free_gib", "activation_gib"}
        for worker, figures in self.each():
            free = figures.total - figures.weights - figures.activation
            usable = free * figures.utilization
            values: dict[str, Value] = {
                "free_after_profile_gib": free,
                "requested_gib": usable,
                "utilization_ratio": str(figures.utilization),
                "cuda_graph_reserved_gib": usable * 0.1,
                "graph_ratio": "0.1",
                "kv_cache_gib": usable * 0.9,
            }
            self.log.say_record("prof.hpu.1", worker, values)

    def size_cache(self) -> None:
        """Write the blocks."""
        number = 6 if self.at_least("0.7.0") else 5
        values: dict[str, Value] = {"device": "hpu", "kv_cache_blocks": self.blocks, "cpu_blocks": 256}
        self.log.say_record(f"prof.blocks_v0_gpu.{number}", self.workers[0], values)
        self.log.say(
            "prof.max_conc",
            self.workers[0],
            {
                "concurrency_tokens": str(self.setup.length),
                "max_concurrency": self.blocks * self.block / self.setup.length,
            },
        )

    def capture(self) -> None:
        """Write the end of warm-up, with its memory in MiB."""
        values: dict[str, Value] = {"graph_capture_seconds": 32.0, "cuda_graph_gib": 0.0906}
        self.log.say_record("prof.hpu.3", self.workers[0], values)


class TpuStart(V0Start):
    """TPU 0.5.0 to 0.6.6: blocks and nothing else."""

    def load(self) -> None:
        """Write nothing: the TPU worker does not say what the weights take."""

    def profile(self) -> None:
        """Write nothing: the TPU worker does not print its profile."""

    def capture(self) -> None:
        """Write nothing: no graphs on this device."""


class OldCpuStart(TpuStart):
    """The CPU backend of V0: its blocks are the cache, not a swap space beside one."""

    def size_cache(self) -> None:
        """Write the blocks of the host; whether they count as the cache's blocks is left open."""
        self.log.optional |= {"kv_cache_blocks"}
        text = render(record("prof.blocks_v0_gpu.1"), {"cpu_blocks": self.blocks})
        self.log.said.add(text.record.id)
        self.log.writer.known(self.workers[0], text.record, text.text)


class AscendStart(V1Start):
    """vLLM with the Ascend plugin; `plugin` is the plugin's own release."""

    def __init__(self, name: str, plugin: str, setup: Setup, wish: Wish | None = None) -> None:
        version = plugin.partition("rc")[0]
        super().__init__(name, version, replace(setup, device="npu"), wish)
        self.plugin = plugin
        if not self._estimates:
            bare = [replace(item, estimate=0.0) for item in self.figures]
            self.figures = [replace(item, kv=rest(item)) for item in bare]

    @property
    def device_word(self) -> str:
        """Return what the size line calls the device from 0.30.0."""
        return "NPU"

    @property
    def second_runner(self) -> bool:
        """Say that the plugin has a runner of its own."""
        return False

    @property
    def _estimates(self) -> bool:
        return at_least(self.plugin, "0.21.0rc1") and not at_least(self.plugin, "0.23.0rc1")

    def announce(self) -> None:
        """Write the plugin's activation before everything else."""
        alone = Process(None, 1)
        self.log.note(alone, "Available plugins for group vllm.platform_plugins:", file="vllm/platforms/__init__.py")
        self.log.note(alone, "- ascend -> vllm_ascend:register", file="vllm/platforms/__init__.py")
        self.log.note(alone, "Platform plugin ascend is activated", file="vllm/platforms/__init__.py")
        super().announce()
        self.log.platform = None

    def load(self) -> None:
        """Write the weights on every rank, in "GB"."""
        self.log.writer.wait(3)
        for worker, figures in self.each():
            if at_least(self.plugin, "0.18.0rc1") and not at_least(self.plugin, "0.28.0"):
                self.log.say_record("ascend.weights_rfork.1", worker, {"checkpoint_read_seconds": 12.34})
            self.log.say_record("ascend.weights.1", worker, {"weights_gib": figures.weights})

    def profile(self) -> None:
        """Write what is left for the KV cache: bytes, or GiB from 0.15.0rc1."""
        log = self.log
        log.writer.wait(4)
        self._compile()
        for index, (worker, figures) in enumerate(self.each()):
            if self.setup.kv_bytes is not None:
                reserved: dict[str, Value] = {"device_free_gib": figures.free, "kv_cache_gib": self.kv_of(figures)}
                log.say_record("ascend.kv_bytes_mode.1", worker, reserved)
                continue
            total: dict[str, Value] = {"kv_cache_gib": figures.kv, "device_total_gib": figures.total}
            if not at_least(self.plugin, "0.15.0rc1"):
                log.say_record(f"ascend.available.{2 if at_least(self.plugin, '0.9.1rc2') else 1}", worker, total)
                continue
            self._profile_debug(worker, figures)
            if index == 0:
                log.say_record("ascend.available_kv.1", worker, {"kv_cache_gib": figures.kv})
            if self._estimates:
                shares: dict[str, Value] = {"utilization_now": 0.92, "utilization_equal": 0.9, "utilization_more": 0.94}
                log.say_record("ascend.graph_prof.2", worker, shares)

    def _profile_debug(self, worker: Process, figures: Figures) -> None:
        if at_least(self.plugin, "0.27.0"):
            return  # whether the plugin follows the new profile line is not known
        super()._profile_debug(worker, figures)

    def _summaries(self) -> None:
        if not at_least(self.plugin, "0.19.1rc1") or self.setup.kv_bytes is not None:
            return
        number = 2 if at_least(self.plugin, "0.24.0rc1") else 1
        for worker, figures in self.each():
            if self._estimates:
                difference = abs(figures.graph - figures.estimate)
                pool: dict[str, Value] = {
                    "cuda_graph_gib": figures.graph,
                    "cuda_graph_estimated_gib": figures.estimate,
                    "graph_difference_gib": difference,
                    "graph_difference_percent": 100 * difference / figures.graph,
                }
                self.log.say_record("ascend.graph_prof.3", worker, pool)
            self.log.say_record(
                f"ascend.suggest.{number}",
                worker,
                {
                    "device_free_gib": figures.free,
                    "device_total_gib": figures.total,
                    "utilization_ratio": str(figures.utilization),
                    "requested_gib": figures.requested,
                    "weights_gib": figures.weights,
                    "activation_gib": figures.activation,
                    "non_torch_gib": figures.non_torch,
                    "cuda_graph_gib": figures.graph,
                    "suggested_in_request_gib": figures.kv - figures.graph,
                    "suggested_in_device_gib": figures.kv - figures.graph + figures.free - figures.requested,
                    "kv_cache_in_use_gib": figures.kv,
                    "torch_reserved_gib": figures.weights + figures.kv + 0.2,
                    "torch_gib": figures.weights + figures.kv,
                },
            )

    def capture(self) -> None:
        """Write graph capture; the plugin has a line of its own until 0.13.0rc1."""
        once = self.at_least("0.14.0")
        for index, (worker, figures) in enumerate(self.each()):
            values: dict[str, Value] = {
                "graph_capture_seconds": figures.capture_seconds,
                "cuda_graph_gib": figures.graph,
            }
            if self._first_of_node(index, once=once):
                self.log.say_record("ascend.graph.1" if not once else "graph.finished.3", worker, values)
        self._summaries()


def rest(figures: Figures) -> float:
    """Return the KV cache when the graph estimate is not taken from it."""
    return figures.requested - figures.weights - figures.activation - figures.non_torch


def start_up(kind: str, name: str, version: str, setup: Setup, wish: Wish | None = None) -> Session:
    """Write the start-up of one device kind."""
    starts = {"gaudi": GaudiStart, "tpu": TpuStart, "old-cpu": OldCpuStart}
    wish = wish or Wish(platform={"gaudi": "hpu", "old-cpu": "cpu"}.get(kind, kind))
    if kind in starts:
        return starts[kind](name, version, setup, wish, device={"gaudi": "HPU", "tpu": "TPU"}.get(kind, "GPU")).run()
    if kind == "xpu":
        return XpuStart(name, version, setup, wish).run()
    if kind == "ascend":
        return AscendStart(name, version, setup, wish).run()
    return CpuStart(name, version, setup, explicit=kind == "cpu-explicit").run()
