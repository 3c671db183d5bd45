"""What the environment says about one simulated server: version, device, pace and faults."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from orchestrator.errors import UsageError
from orchestrator.vllm.devices import DEFAULT_DEVICE, Device, device_named
from orchestrator.vllm.version import at_least, parse_version

DEFAULT_VERSION = "0.19.0"
OLDEST_VERSION = "0.8.5"
FAULTS = frozenset(
    {
        "hang",
        "nccl",
        "gated",
        "missing",
        "unreachable",
        "killed",
        "runtime_oom",
        "graph_oom",
        "profiling_race",
    }
)


@dataclass(frozen=True, slots=True)
class Environment:
    """Settings of the simulation itself; `visible_gpus` is None when nothing limits them, `speed` is a factor."""

    version: Version
    version_text: str
    device: Device
    visible_gpus: int | None
    speed: float
    busy_gib: float
    fault: str | None
    replay: Path | None
    debug: bool
    color: bool


def _number(environ: Mapping[str, str], name: str, default: float, *, above_zero: bool) -> float:
    text = environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        raise UsageError(f"{name} is {text!r}", remedy="write a number") from None
    if value < 0 or (above_zero and value == 0):
        raise UsageError(f"{name} is {text!r}", remedy="write a number above zero")
    return value


def _visible_gpus(environ: Mapping[str, str]) -> int | None:
    explicit = environ.get("KPROF_SIMULATE_GPUS", "")
    if explicit:
        if not explicit.isdigit():
            raise UsageError(f"KPROF_SIMULATE_GPUS is {explicit!r}", remedy="write a whole number")
        return int(explicit)
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        entries = [entry.strip() for entry in environ.get(name, "").split(",")]
        if all(entry.isdigit() for entry in entries):
            return len(entries)
    return None


def read_environment(environ: Mapping[str, str], *, tty: bool) -> Environment:
    """Read the simulation's settings; raises UsageError for a value that makes no sense."""
    text = environ.get("KPROF_SIMULATE_VERSION") or DEFAULT_VERSION
    version = parse_version(text)
    if version is None or not at_least(version, OLDEST_VERSION):
        raise UsageError(f"vLLM {text} cannot be simulated", remedy=f"name a release from {OLDEST_VERSION} on")
    fault = environ.get("KPROF_SIMULATE_FAULT") or None
    if fault is not None and fault not in FAULTS:
        raise UsageError(f"KPROF_SIMULATE_FAULT is {fault!r}", remedy="one of: " + ", ".join(sorted(FAULTS)))
    replay = environ.get("KPROF_SIMULATE_REPLAY") or None
    # Until 0.15.1 vLLM coloured the process prefix even in files.
    color = not environ.get("NO_COLOR") and (tty or not at_least(version, "0.16.0"))
    return Environment(
        version=version,
        version_text=text.removeprefix("v"),
        device=device_named(environ.get("KPROF_SIMULATE_DEVICE") or DEFAULT_DEVICE),
        visible_gpus=_visible_gpus(environ),
        speed=_number(environ, "KPROF_SIMULATE_SPEED", 1.0, above_zero=True),
        busy_gib=_number(environ, "KPROF_SIMULATE_BUSY_GIB", 0.0, above_zero=False),
        fault=fault,
        replay=None if replay is None else Path(replay),
        debug=environ.get("VLLM_LOGGING_LEVEL", "INFO").upper() == "DEBUG",
        color=color,
    )
