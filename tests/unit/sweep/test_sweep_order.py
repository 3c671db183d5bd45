"""The order of points that share a cache volume."""

from itertools import groupby
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.matrix.point import Point
from orchestrator.sweep.schedule import longest_first
from tests.fakes.matrix import point

MODELS = ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B", "org/unknown")


def _point(model: str, size: int, seed: int, claim: str | None) -> Point:
    fields: dict[str, Any] = {"arguments": {"tp": size, "seed": seed}}
    if claim is not None:
        fields["cache"] = {"claimName": claim}
    return point(model, **fields)


points = st.lists(
    st.tuples(st.sampled_from(MODELS), st.sampled_from([1, 2, 4, 8]), st.sampled_from(["models", None])), max_size=12
).map(lambda drawn: [_point(model, size, seed, claim) for seed, (model, size, claim) in enumerate(drawn)])


@given(points)
def test_points_of_one_model_on_one_volume_follow_one_another(drawn: list[Point]) -> None:
    """Nothing comes between them, and among them the longest is first."""
    cached = [each for each in longest_first(drawn) if each.cache_claim is not None]
    models = [model for model, _ in groupby(each.model for each in cached)]
    assert len(models) == len(set(models))
    for _, group in groupby(cached, key=lambda each: each.model):
        counts = [each.accelerator.count for each in group]
        assert counts == sorted(counts, reverse=True)


@given(points)
def test_the_longest_point_of_all_is_still_first(drawn: list[Point]) -> None:
    """A volume changes the order behind it, and loses no point."""
    ordered = longest_first(drawn)
    assert sorted(each.hash for each in ordered) == sorted(each.hash for each in drawn)
    if ordered:
        assert ordered[0].accelerator.count == max(each.accelerator.count for each in drawn)


def test_without_a_volume_models_are_mixed_by_length() -> None:
    """Each pod fetches its own files then, so nothing is gained by keeping a model together."""
    small, large = "Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B"
    drawn = [_point(small, 4, 0, None), _point(small, 1, 1, None), _point(large, 2, 2, None)]
    assert [each.accelerator.count for each in longest_first(drawn)] == [4, 2, 1]
