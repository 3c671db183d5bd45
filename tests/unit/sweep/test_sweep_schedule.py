"""Which points start when devices, slots and patience are short."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.matrix.point import Point
from orchestrator.sweep.schedule import Limits, longest_first, startable
from tests.fakes.matrix import point

_KNOWN = {
    (vendor, size, seed): point(accelerator={"vendor": vendor}, arguments={"tp": size, "seed": seed})
    for vendor in ("nvidia", "amd", "cpu")
    for size in (1, 2, 4, 8)
    for seed in (1, 2)
}
POINTS = st.lists(st.sampled_from(sorted(_KNOWN)), max_size=12, unique=True).map(lambda keys: [_KNOWN[k] for k in keys])
FREE = st.fixed_dictionaries(
    {"nvidia.com/gpu": st.none() | st.integers(0, 16), "amd.com/gpu": st.none() | st.integers(0, 16), None: st.none()}
)
LIMITS = st.builds(Limits, st.none() | st.integers(1, 16), st.none() | st.integers(1, 6))


def _devices(points: list[Point]) -> int:
    return sum(p.accelerator.count for p in points)


@given(POINTS, POINTS, FREE, LIMITS)
def test_no_limit_is_ever_passed(
    waiting: list[Point], running: list[Point], free: dict[str | None, int | None], limits: Limits
) -> None:
    """Not the devices allowed, not those that are free, not the points at once; nothing starts twice."""
    chosen = startable(waiting, running, free, limits)
    assert [p for p in waiting if p in chosen] == chosen
    if limits.max_gpus is not None and _devices(chosen):
        assert _devices(chosen) + _devices(running) <= limits.max_gpus
    if limits.max_parallel is not None and chosen:
        assert len(chosen) + len(running) <= limits.max_parallel
    for resource, amount in free.items():
        if amount is not None:
            assert _devices([p for p in chosen if p.accelerator.resource == resource]) <= amount


@given(POINTS, POINTS, FREE, LIMITS)
def test_no_point_waits_that_could_start(
    waiting: list[Point], running: list[Point], free: dict[str | None, int | None], limits: Limits
) -> None:
    """Whatever was passed over does not fit beside what was chosen."""
    chosen = startable(waiting, running, free, limits)
    if limits.max_parallel is not None and len(chosen) + len(running) >= limits.max_parallel:
        return
    for left in (p for p in waiting if p not in chosen):
        need, resource = left.accelerator.count, left.accelerator.resource
        amount = free.get(resource)
        over = limits.max_gpus is not None and _devices(chosen) + _devices(running) + need > limits.max_gpus
        short = (
            amount is not None and _devices([p for p in chosen if p.accelerator.resource == resource]) + need > amount
        )
        assert over or short


def test_a_small_point_passes_a_big_one_that_does_not_fit() -> None:
    """Free devices are not left idle for a point that needs more of them."""
    big, small = point(arguments={"tp": 8}), point()
    assert startable([big, small], [], {"nvidia.com/gpu": 2}, Limits()) == [small]


def test_a_cluster_that_does_not_tell_is_asked_for_everything() -> None:
    """Unknown is not zero: the scheduler of the cluster decides."""
    points = [point(arguments={"tp": 8}), point()]
    assert startable(points, [], {"nvidia.com/gpu": None}, Limits()) == points


def test_the_longest_point_starts_first() -> None:
    """More devices first, then more weights; points of unknown models keep their order."""
    big = point("Qwen/Qwen3-32B", arguments={"tp": 2})
    heavy, light = point("Qwen/Qwen3-32B"), point("Qwen/Qwen3-0.6B")
    one, two = point("org/unknown"), point("org/other")
    assert longest_first([one, light, two, heavy, big]) == [big, heavy, light, one, two]


@given(POINTS)
def test_ordering_loses_no_point(points: list[Point]) -> None:
    """The same points, by falling device count."""
    ordered = longest_first(points)
    assert sorted(p.hash for p in ordered) == sorted(p.hash for p in points)
    counts = [p.accelerator.count for p in ordered]
    assert counts == sorted(counts, reverse=True)
