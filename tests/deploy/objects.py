"""Kubernetes objects as a rendering tool or a file gives them, and questions about them."""

import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
MANIFESTS = CHECKOUT / "manifests"
CHART = CHECKOUT / "charts" / "kprof"
RENDER_SECONDS = 60.0

Object = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """The pod of one object, and what to call it in a message."""

    name: str
    labels: dict[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        """Return its containers, those that run first included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def call(*argv: str | Path) -> str:
    """Run a program and return what it printed; a failure is the test's, with the program's own words."""
    done = attempt(*argv)
    assert done.returncode == 0, f"{Path(argv[0]).name} {argv[1]}: {done.stderr}\n{done.stdout}"
    return done.stdout


def attempt(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program and return how it ended."""
    return subprocess.run(
        [str(word) for word in argv], capture_output=True, text=True, timeout=RENDER_SECONDS, check=False
    )


def read(text: str) -> list[Object]:
    """Return the objects of a YAML stream."""
    return [item for item in yaml.safe_load_all(text) if item]


def template(helm: Path, *arguments: str | Path, release: str = "kprof", namespace: str = "kprof") -> list[Object]:
    """Return what the chart renders to."""
    return read(call(helm, "template", release, CHART, "--namespace", namespace, *arguments))


def build(kustomize: Path, folder: Path) -> list[Object]:
    """Return what a kustomization renders to."""
    return read(call(kustomize, "build", folder))


def only(objects: Iterable[Object], kind: str, name: str | None = None) -> Object:
    """Return the one object of a kind (and name)."""
    found = [item for item in objects if item["kind"] == kind and name in {None, item["metadata"]["name"]}]
    assert len(found) == 1, f"{len(found)} objects of kind {kind}, name {name}"
    return found[0]


def kinds(objects: Iterable[Object]) -> list[str]:
    """Return the kinds, sorted."""
    return sorted(item["kind"] for item in objects)


def workloads(objects: Iterable[Object]) -> Iterator[Workload]:
    """Yield the pod of each object that makes one."""
    for item in objects:
        name = f"{item['kind']}/{item['metadata']['name']}"
        if item["kind"] == "Pod":
            yield Workload(name, item["metadata"].get("labels", {}), item["spec"])
        elif item["kind"] == "CronJob":
            made = item["spec"]["jobTemplate"]["spec"]["template"]
            yield Workload(name, made["metadata"].get("labels", {}), made["spec"])
        else:
            assert "template" not in item.get("spec", {}), f"{name} makes pods that nothing here looks at"
