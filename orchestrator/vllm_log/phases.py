"""The memory of a device at named moments of the profile, as patched vllm-ascend builds print it.

torch_memory before init HCCL is 0.00 G
torch_peak after profiling, before empty_cache() is 13.30 G
non_torch_memory after profiling multi-modal is 1.05 G
"""

import re

_LINE = re.compile(
    r"(?<!\w)(torch_memory|torch_peak|non_torch_memory) ((?:before|after) [\w ,()\-]{1,80}?) is "
    r"(-?\d{1,6}(?:\.\d{1,6})?) ?G\b"
)
_PEAK = re.compile(r"(peak_activation_memory) new is (-?\d{1,6}(?:\.\d{1,6})?) ?G\b")
MOST_PHASES = 64


def read_phase(text: str) -> tuple[str, str, float] | None:
    """Return moment, quantity (ending in `_gib`) and GiB of a line; None when it is no such line."""
    if match := _LINE.search(text):
        return match.group(2), f"{match.group(1)}_gib", float(match.group(3))
    return None


def read_peak(text: str) -> float | None:
    """Return the activation peak that the new profiling method counts, GiB."""
    match = _PEAK.search(text)
    return float(match.group(2)) if match else None
