"""Which points may start now: longest first, within the devices that are free and the limits given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import UsageError
from orchestrator.matrix.point import Point
from orchestrator.memory.weights import weight_bytes
from orchestrator.vllm.model_config import model_config
from orchestrator.vllm.settings import EngineSettings


@dataclass(frozen=True, slots=True)
class Limits:
    """What the user allows: devices in use at once and points in flight; None is no limit."""

    max_gpus: int | None = None
    max_parallel: int | None = None


def longest_first(points: Sequence[Point]) -> list[Point]:
    """Order points by how long they will take: more devices first, then more weights, then as written.

    A long point that starts last would keep the whole sweep waiting for it. Points that share a cache volume stay
    with the longest one of their model, so that its files are fetched once and read while the volume has them at hand.
    """
    sizes = {point.hash: (-point.accelerator.count, -_weight(point)) for point in points}
    longest: dict[tuple[str, str], tuple[int, int]] = {}
    for point in points:
        if point.cache_claim is not None:
            shared = (point.cache_claim, point.model)
            longest[shared] = min(sizes[point.hash], longest.get(shared, (0, 0)))

    def place(point: Point) -> tuple[tuple[int, int], str, tuple[int, int]]:
        own = sizes[point.hash]
        if point.cache_claim is None:
            return own, "", own
        return longest[point.cache_claim, point.model], point.model, own

    return sorted(points, key=place)


def _weight(point: Point) -> int:
    try:
        model = model_config(point.model)
    except UsageError:
        return 0  # an unknown model keeps its place among those of equal device count
    settings = EngineSettings(
        1, 1, 1, 0.9, 1, 16, 1, 1, 2, model.dtype_bytes, model.quantization, False, True, None, None
    )
    return weight_bytes(model, settings)


def startable(
    waiting: Sequence[Point],
    running: Sequence[Point],
    free: Mapping[str | None, int | None],
    limits: Limits,
    leaving: int = 0,
) -> list[Point]:
    """Return the waiting points that may start now, in order.

    `free` is what the cluster could still give, by resource (None: it does not tell). A point that does not fit
    is passed over for smaller ones behind it; points never hold more than `max_gpus` together, counting the
    devices of pods that are `leaving`.
    """
    used = leaving + sum(point.accelerator.count for point in running)
    left = dict(free)
    slots = None if limits.max_parallel is None else limits.max_parallel - len(running)
    chosen: list[Point] = []
    for point in waiting:
        resource = point.accelerator.resource
        need = point.accelerator.count if resource is not None else 1  # one place, where places are counted
        if slots is not None and len(chosen) >= slots:
            break
        if limits.max_gpus is not None and used + point.accelerator.count > limits.max_gpus:
            continue
        available = left.get(resource)
        if available is not None:
            if need > available:
                continue
            left[resource] = available - need
        used += point.accelerator.count
        chosen.append(point)
    return chosen
