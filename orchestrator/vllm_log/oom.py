"""What torch's out-of-memory sentence says of the device and of the processes on it."""

import re

from orchestrator.vllm_log.template import UNIT_GIB

_OTHERS = re.compile(r"Process \d{1,10} has (\d{1,9}(?:\.\d{1,9})?) (KiB|MiB|GiB) memory in use")
_OWN = re.compile(r"this process has (\d{1,9}(?:\.\d{1,9})?) (KiB|MiB|GiB) memory in use")
_CAPACITY = re.compile(
    r"has a total capac\w{1,6} of (\d{1,9}(?:\.\d{1,9})?) (MiB|GiB) of which "
    r"(\d{1,15}(?:\.\d{1,9})?) (bytes|KiB|MiB|GiB) is free"
)
BUSY_SHARE = 0.25  # another process with more than this part of the device makes the device busy


def _gib(match: re.Match[str], group: int = 1) -> float:
    return float(match.group(group)) * UNIT_GIB[match.group(group + 1)]


def device_is_busy(text: str) -> bool:
    """Say whether other processes hold so much of the device that the configuration is not to blame."""
    others = sum(_gib(match) for match in _OTHERS.finditer(text))
    capacity = _CAPACITY.search(text)
    return bool(others and capacity and _OWN.search(text) and others > BUSY_SHARE * _gib(capacity))


def device_memory(text: str) -> dict[str, float]:
    """Return total_gib and free_gib of the device, empty when the sentence does not tell."""
    match = _CAPACITY.search(text)
    return {"total_gib": _gib(match), "free_gib": _gib(match, 3)} if match else {}
