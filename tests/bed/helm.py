"""The programs that render a deployment, helm and kustomize: built like the bed's own, needed without a bed too."""

from pathlib import Path

from tests.bed import binaries
from tests.bed.binaries import Component
from tests.bed.layout import layout

_HELM = "helm.sh/helm/v4"
_KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5"

HELM = Component(
    "helm",
    _HELM,
    (f"{_HELM}/cmd/helm",),
    variables=(f"{_HELM}/internal/version.version=v{{version}}",),
)
# 5.8.3 wants Go 1.27; the bed builds with 1.26.
KUSTOMIZE = Component("kustomize", _KUSTOMIZE, (_KUSTOMIZE,))


def helm() -> Path:
    """Return helm, built if the cache lacks it; raises MissingError where that is not possible."""
    return binaries._cached(layout(), HELM) / "helm"


def kustomize() -> Path:
    """Return kustomize, built if the cache lacks it; raises MissingError where that is not possible."""
    return binaries._cached(layout(), KUSTOMIZE) / "kustomize"


if __name__ == "__main__":
    for program in (helm(), kustomize()):
        print(program)
