"""One pretended start-up: what was asked for, what it computes to, and the means to show it."""

import asyncio
from dataclasses import dataclass

from packaging.version import Version

from orchestrator.memory.estimate import MemoryEstimate, estimate
from orchestrator.memory.kv_cache import longest_model_len
from orchestrator.memory.runtime import GIB
from orchestrator.simulator.arguments import ServeArguments
from orchestrator.simulator.environment import Environment
from orchestrator.simulator.log import Log, Process
from orchestrator.vllm.model_config import ModelConfig
from orchestrator.vllm.settings import EngineSettings, resolve
from orchestrator.vllm.version import at_least


@dataclass(frozen=True, slots=True)
class Run:
    """One server: its arguments, its model, and the memory budget of one rank."""

    environment: Environment
    arguments: ServeArguments
    model: ModelConfig
    settings: EngineSettings
    memory: MemoryEstimate
    log: Log
    front: Process
    auto_length: bool

    @property
    def version(self) -> Version:
        """Return the vLLM release whose wording is spoken."""
        return self.environment.version

    def since(self, release: str) -> bool:
        """Say whether the simulated release contains what `release` brought."""
        return at_least(self.version, release)

    async def wait(self, seconds: float) -> None:
        """Let `seconds` of a real start-up pass, scaled by the simulation's speed."""
        await asyncio.sleep(seconds / self.environment.speed)


def compute(
    arguments: ServeArguments, model: ModelConfig, environment: Environment
) -> tuple[EngineSettings, MemoryEstimate]:
    """Fill in the version's defaults and compute the budget; `auto` takes the longest context that fits."""
    device, version = environment.device, environment.version
    given = dict(arguments.given)
    busy = round(environment.busy_gib * GIB)

    def settle() -> tuple[EngineSettings, MemoryEstimate]:
        settings = resolve(given, model, version, device.total_gib, a100="A100" in device.name)
        return settings, estimate(model, settings, device, version, busy_bytes=busy)

    settings, memory = settle()
    if given.get("max-model-len") == "auto":
        longest = longest_model_len(memory.kv_cache_bytes, memory.layout, settings)
        if 0 < longest < settings.max_model_len:
            given["max-model-len"] = longest
            settings, memory = settle()
    return settings, memory
