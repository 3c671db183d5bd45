"""The command line at work: one kprof for each test, and one undisturbed sweep that many tests look at."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.command import H100, SPEED, Kprof, Outcome
from tests.e2e.kube import Kube
from tests.e2e.sampler import PodSampler

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the cluster; the time it takes to come up does not count for the first test."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(120, func_only=True))
            if "kube" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.e2e)


@dataclass(frozen=True)
class Sweep:
    """A sweep that nobody disturbed: the kprof that ran it, and how it ended."""

    kprof: Kprof
    outcome: Outcome


@dataclass(frozen=True)
class ClusterSweep(Sweep):
    """The same on Kubernetes: its namespace, what the sampler saw, and what was left at the end."""

    namespace: str
    sampler: PodSampler
    left: list[str]


@pytest.fixture
def kprof(tmp_path: Path) -> Iterator[Kprof]:
    """Return a kprof that knows no cluster."""
    command = Kprof(tmp_path)
    yield command
    command.close()


@pytest.fixture
def cluster_kprof(kube: Kube, tmp_path: Path) -> Iterator[Kprof]:
    """Return a kprof whose kubeconfig is the cluster's."""
    command = Kprof(tmp_path, kube.kubeconfig)
    yield command
    command.close()


@pytest.fixture(scope="session")
def local_sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    """Run the H100 sweep once on this machine."""
    command = Kprof(tmp_path_factory.mktemp("local-sweep"))
    yield Sweep(command, command.run("sweep", H100, "--on", "local", *SPEED, "--format", "json"))
    command.close()


@pytest.fixture(scope="session")
def cluster_sweep(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterSweep]:
    """Run the H100 sweep once on the cluster, with the sampler beside it."""
    command = Kprof(tmp_path_factory.mktemp("cluster-sweep"), kube.kubeconfig)
    with kube.namespace() as namespace:
        with PodSampler(kube, namespace) as sampler:
            outcome = command.run("sweep", H100, *SPEED, "--format", "json", "-n", namespace)
            left = kube.left()
        yield ClusterSweep(command, outcome, namespace, sampler, left)
    command.close()
