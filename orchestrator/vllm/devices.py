"""Accelerators as vLLM sees them: total memory of one device in GiB, as CUDA or HIP reports it."""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.errors import UsageError


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator: `total_gib` is what `mem_get_info` returns, less than the marketing size."""

    name: str
    platform: str
    total_gib: float


_DEVICES = (
    Device("NVIDIA-H100-80GB-HBM3", "cuda", 79.18),
    Device("NVIDIA-H200", "cuda", 139.81),
    Device("NVIDIA-A100-SXM4-80GB", "cuda", 79.25),
    Device("NVIDIA-A100-SXM4-40GB", "cuda", 39.50),
    Device("NVIDIA-L40S", "cuda", 44.52),
    Device("NVIDIA-L4", "cuda", 22.03),
    Device("AMD-Instinct-MI300X", "rocm", 191.98),
)
DEVICES: Mapping[str, Device] = {device.name: device for device in _DEVICES}
DEFAULT_DEVICE = "NVIDIA-H100-80GB-HBM3"


def device_named(name: str) -> Device:
    """Look a device up by the product name of a node's label; raises UsageError if it is unknown."""
    try:
        return DEVICES[name]
    except KeyError:
        known = ", ".join(sorted(DEVICES))
        raise UsageError(f"no device {name!r} is known to the simulator", remedy=f"known: {known}") from None
