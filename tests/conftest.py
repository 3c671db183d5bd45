"""What the contract suite and the end-to-end suite share: one cluster, and a namespace for each test."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.bed import cluster as bed
from tests.bed.errors import MissingError
from tests.bed.layout import layout
from tests.e2e.kube import Kube

SWITCHES = ("KPROF_E2E", "KPROF_REQUIRE_BED", "KPROF_E2E_KUBECONFIG")


def _missing(sentence: str) -> NoReturn:
    """Fail where a cluster is promised (CI), else skip with the same sentence."""
    if os.environ.get("KPROF_REQUIRE_BED") == "1":
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


def _kubectl() -> str:
    built = sorted(layout().cache.glob("kubernetes-*/kubectl"))
    found = shutil.which("kubectl") or (str(built[-1]) if built else None)
    if found is None:
        _missing("KUBECONFIG is set, but there is no kubectl in PATH")
    return found


@pytest.fixture(scope="session")
def kube() -> Iterator[Kube]:
    """Return the cluster: KPROF_E2E_KUBECONFIG or KUBECONFIG, else the test bed, which goes down again if it was."""
    if not any(os.environ.get(name) for name in SWITCHES):
        # KUBECONFIG alone is no consent: it may be somebody's production.
        pytest.skip("CLUSTER SUITE NOT RUN: set KPROF_E2E=1 (make e2e) to run it on KUBECONFIG or on the test bed")
    given = os.environ.get("KPROF_E2E_KUBECONFIG") or os.environ.get("KUBECONFIG")
    if given and Path(given) != layout().kubeconfig:
        yield Kube(Path(given), _kubectl())
        return
    before = bed.status().running
    try:
        state = bed.up()  # where it runs already, this brings its image up to date
        yield Kube(state.kubeconfig, str(bed.build().kubectl))
    except MissingError as error:
        _missing(f"CLUSTER SUITE NOT RUN: no test bed here: {error}")
    finally:
        if not before:
            bed.down()


@pytest.fixture
def namespace(kube: Kube) -> Iterator[str]:
    """Return a namespace of this test's own."""
    with kube.namespace() as name:
        yield name
