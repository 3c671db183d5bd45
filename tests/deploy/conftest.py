"""The tools that render a deployment, and what they render."""

from pathlib import Path

import pytest

from tests.bed import cluster as bed
from tests.bed import helm as tools
from tests.bed.errors import MissingError
from tests.bed.layout import KPROF_IMAGE, layout
from tests.conftest import _missing
from tests.deploy.deployment import SIMULATOR
from tests.deploy.objects import MANIFESTS, Object, build, template
from tests.e2e.kube import Kube

HERE = Path(__file__).parent
# `deployment` asks for the cluster only when it knows which way it is made.
ON_CLUSTER = {"kube", "deployment", "image_file"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the cluster; the time to build a tool or to bring the cluster up is no test's."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(120, func_only=True))
            if ON_CLUSTER.intersection(getattr(item, "fixturenames", ())):
                item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def helm() -> Path:
    """Return helm, built from its Go module if the cache lacks it."""
    try:
        return tools.helm()
    except MissingError as error:
        _missing(f"CHART TESTS NOT RUN: no helm: {error}")


@pytest.fixture(scope="session")
def kustomize() -> Path:
    """Return kustomize, built from its Go module if the cache lacks it."""
    try:
        return tools.kustomize()
    except MissingError as error:
        _missing(f"KUSTOMIZE TESTS NOT RUN: no kustomize: {error}")


@pytest.fixture(scope="session")
def image_file(kube: Kube) -> Path:
    """Return kprof's own image, built from the Dockerfile and loaded into the test bed."""
    if kube.kubeconfig != layout().kubeconfig:
        pytest.skip("IMAGE NOT BUILT: that takes the test bed, whose containerd it is loaded into")
    try:
        return bed.own_image()
    except MissingError as error:
        _missing(f"IMAGE NOT BUILT: {error}")


@pytest.fixture(scope="session")
def image(kube: Kube, request: pytest.FixtureRequest) -> str:
    """Return the name of the image for kprof's own pods; another cluster has kprof in the simulator's image only."""
    if kube.kubeconfig != layout().kubeconfig:
        return SIMULATOR
    request.getfixturevalue("image_file")
    return KPROF_IMAGE


@pytest.fixture(scope="session")
def base(kustomize: Path) -> list[Object]:
    """Return the rendered base."""
    return build(kustomize, MANIFESTS / "base")


@pytest.fixture(scope="session")
def example(kustomize: Path) -> list[Object]:
    """Return the rendered example overlay, with both components."""
    return build(kustomize, MANIFESTS / "overlays" / "example")


@pytest.fixture(scope="session")
def chart(helm: Path) -> list[Object]:
    """Return the chart as its own values render it, without the pod of `helm test`."""
    return template(helm, "--skip-tests")
