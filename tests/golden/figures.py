"""Memory figures of one rank that satisfy the accounting of a version, drawn from a seed."""

import math
import random
from dataclasses import dataclass, replace

from tests.golden.catalogue import GIB, at_least

DEVICES = (79.1875, 39.4955, 139.8008, 44.5244, 23.5771)


@dataclass(frozen=True)
class Figures:
    """What one rank measures, in GiB and seconds; `activation` is the peak of the profile run, without graphs."""

    total: float
    free: float
    utilization: float
    requested: float
    weights: float
    activation: float
    non_torch: float
    graph: float
    estimate: float
    kv: float
    load_seconds: float
    read_seconds: float
    compile_seconds: float
    profile_seconds: float
    capture_seconds: float
    external: float = 0.0

    @property
    def consumed(self) -> float:
        """Return weights and non-torch together, as 0.27.0 and later print them."""
        return self.weights + self.non_torch

    @property
    def free_after(self) -> float:
        """Return the free memory after profiling."""
        return self.free - self.consumed


@dataclass(frozen=True)
class Awkward:
    """What to make awkward: values as printed by real servers in rare cases."""

    graph: float | None = None
    non_torch: float | None = None
    kv: float | None = None
    device: int | None = None
    utilization: float | None = None
    weights: float | None = None
    external: float = 0.0
    no_estimate: bool = False


def subtracts_estimate(version: str) -> bool:
    """Say whether the KV cache is reduced by the CUDA-graph estimate (default from 0.20.0)."""
    return at_least(version, "0.20.0")


def draw(seed: str, version: str, ranks: int, awkward: Awkward, *, with_graph: bool = True) -> list[Figures]:
    """Return the figures of every rank: alike, but not equal."""
    dice = random.Random(seed)
    base = _base(dice, version, awkward, with_graph=with_graph)
    found = [base]
    while len(found) < ranks:
        non_torch = base.non_torch if awkward.non_torch is not None else base.non_torch + dice.randint(3, 90) / 1000
        other = replace(
            base,
            weights=base.weights - dice.randint(0, 40) / 1000,
            activation=base.activation + dice.randint(0, 30) / 1000,
            non_torch=non_torch,
            free=base.free - dice.randint(0, 30) / 1000,
            graph=base.graph + (0.01 if awkward.graph is None else 0.0),
            load_seconds=base.load_seconds + dice.random(),
            compile_seconds=base.compile_seconds + dice.random(),
            profile_seconds=base.profile_seconds + dice.random(),
        )
        found.append(replace(other, kv=_rest(other, version)))
    return [_settle(figures, version) for figures in found]


def _base(dice: random.Random, version: str, awkward: Awkward, *, with_graph: bool) -> Figures:
    total = DEVICES[awkward.device if awkward.device is not None else dice.randrange(len(DEVICES) - 1)]
    usual = 0.92 if at_least(version, "0.20.0") else 0.9
    utilization = awkward.utilization or dice.choice((usual, usual, 0.85, 0.95))
    requested = total * utilization
    if at_least(version, "0.14.0"):
        requested = math.ceil(requested * GIB) / GIB
    weights = awkward.weights or round(total * dice.uniform(0.15, 0.45), 4)
    activation = round(dice.uniform(0.4, 5.5), 4)
    non_torch = awkward.non_torch if awkward.non_torch is not None else round(dice.uniform(0.05, 1.9), 4)
    graph = awkward.graph if awkward.graph is not None else round(dice.uniform(0.2, 2.4), 4)
    estimate = round(abs(graph) * dice.uniform(0.8, 1.3) + 0.02, 4)
    if awkward.no_estimate:
        estimate = 0.0
    if not with_graph:
        graph = estimate = 0.0
    figures = Figures(
        total=total,
        free=total - round(dice.uniform(0.42, 1.3), 3),
        utilization=utilization,
        requested=requested,
        weights=weights,
        activation=activation,
        non_torch=non_torch,
        graph=graph,
        estimate=estimate,
        kv=0.0,
        load_seconds=round(dice.uniform(2, 90), 6),
        read_seconds=round(dice.uniform(1, 60), 2),
        compile_seconds=round(dice.uniform(4, 110), 2),
        profile_seconds=round(dice.uniform(0.6, 14), 2),
        capture_seconds=float(dice.randint(2, 40)),
        external=awkward.external,
    )
    if awkward.kv is not None:
        figures = replace(figures, activation=figures.activation + _rest(figures, version) - awkward.kv)
    return replace(figures, kv=_rest(figures, version))


def _rest(figures: Figures, version: str) -> float:
    rest = figures.requested - figures.external - figures.weights - figures.activation - figures.non_torch
    return rest - figures.estimate if subtracts_estimate(version) else rest


def _settle(figures: Figures, version: str) -> Figures:
    """Nudge the activation until the sum of the figures rounded to 0.01 closes to 0.015."""
    while abs(_printed_residual(figures, version)) > 0.015:
        nudged = replace(figures, activation=figures.activation + 0.0013)
        figures = replace(nudged, kv=_rest(nudged, version))
    return figures


def _printed_residual(figures: Figures, version: str) -> float:
    terms = [figures.weights, figures.activation, figures.non_torch]
    if at_least(version, "0.27.0"):
        terms = [figures.consumed, figures.activation + figures.estimate]
    elif subtracts_estimate(version):
        terms.append(figures.estimate)
    budget = round(figures.requested, 2) - round(figures.external, 2) - round(figures.kv, 2)
    return budget - sum(round(term, 2) for term in terms)
