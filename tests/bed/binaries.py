"""The programs of the bed: built from Go modules, or unpacked from a Debian package, into the cache."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bed.errors import BedError, MissingError
from tests.bed.layout import HERE, Layout
from tests.bed.shell import run, step

NO_NETWORK = (
    "dial tcp",
    "no such host",
    "i/o timeout",
    "connection refused",
    "proxyconnect",
    "TLS handshake",
)


@dataclass(frozen=True)
class Component:
    """One module folder below go/: the module that gives it its version, and what to build of it."""

    name: str
    module: str
    packages: tuple[str, ...]
    # {version}, {major} and {minor} are filled in.
    variables: tuple[str, ...] = ()
    tags: str = ""
    # Go names a program after the last folder of its path; these get another name.
    renames: tuple[tuple[str, str], ...] = ()

    @property
    def version(self) -> str:
        """The version that the checked-in go.mod asks for, without the leading v."""
        if not self.module:
            return "1"
        text = (HERE / "go" / self.name / "go.mod").read_text()
        found = re.search(rf"^\s*(?:require )?{re.escape(self.module)} v(\S+)", text, re.MULTILINE)
        if found is None:
            raise BedError(f"go/{self.name}/go.mod does not require {self.module}")
        return found[1]


_K8S = "k8s.io/component-base/version"
_CONTAINERD = "github.com/containerd/containerd/v2"
_PLUGINS = "github.com/containernetworking/plugins"

KUBERNETES = Component(
    "kubernetes",
    "k8s.io/kubernetes",
    tuple(
        f"k8s.io/kubernetes/cmd/{name}"
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet")
    ),
    variables=(
        f"{_K8S}.gitVersion=v{{version}}",
        f"{_K8S}.gitMajor={{major}}",
        f"{_K8S}.gitMinor={{minor}}",
        f"{_K8S}.gitTreeState=clean",
    ),
)
ETCD = Component("etcd", "go.etcd.io/etcd/server/v3", ("go.etcd.io/etcd/server/v3",), renames=(("server", "etcd"),))
CONTAINERD = Component(
    "containerd",
    _CONTAINERD,
    tuple(f"{_CONTAINERD}/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")),
    variables=(f"{_CONTAINERD}/version.Version=v{{version}}",),
    tags="no_btrfs,no_devmapper,no_zfs",
)
CNI = Component(
    "cni",
    _PLUGINS,
    tuple(f"{_PLUGINS}/plugins/{name}" for name in ("main/bridge", "main/loopback", "ipam/host-local")),
)
PAUSE = Component("pause", "", (".",))
GO_COMPONENTS = (PAUSE, CNI, ETCD, CONTAINERD, KUBERNETES)


@dataclass(frozen=True)
class Binaries:
    """The folders that hold the programs of each component."""

    kubernetes: Path
    etcd: Path
    containerd: Path
    cni: Path
    pause: Path
    runc: Path

    @property
    def kubectl(self) -> Path:
        """The kubectl of the bed's own Kubernetes version."""
        return self.kubernetes / "kubectl"


def build_all(where: Layout) -> Binaries:
    """Return all programs, making those that the cache lacks (about ten minutes on two cores for all of them)."""
    folders = {component.name: _cached(where, component) for component in GO_COMPONENTS}
    return Binaries(runc=_runc(where), **folders)


def into_cache(target: Path, make: Callable[[Path], None]) -> Path:
    """Let make fill a temporary folder and give it its name once it is whole; reuse the target if it is there."""
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=target.parent) as folder:
            fresh = Path(folder) / "made"
            fresh.mkdir()
            make(fresh)
            fresh.rename(target)
    return target


def _cached(where: Layout, component: Component) -> Path:
    target = where.cache / f"{component.name}-{component.version}"
    if target.is_dir():
        return target
    with step(f"build {target.name}"):
        return into_cache(target, lambda folder: _go_build(component, folder))


def _go_build(component: Component, folder: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise MissingError("the Go compiler is missing: install Go 1.26 or newer from https://go.dev/dl/")
    major, minor, *_ = [*component.version.split("."), "0"]
    values = {"version": component.version, "major": major, "minor": minor}
    flags = " ".join(["-s -w", *(f"-X {text.format(**values)}" for text in component.variables)])
    argv = [go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-tags", component.tags]
    argv += ["-ldflags", flags, "-o", f"{folder}/", *component.packages]
    try:
        run(argv, cwd=HERE / "go" / component.name, env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": ""})
    except BedError as error:
        if any(sign in str(error) for sign in NO_NETWORK):
            raise MissingError(
                f"the Go module proxy is out of reach: set GOPROXY to one that answers\n{error}"
            ) from error
        raise
    for built, wanted in component.renames:
        (folder / built).rename(folder / wanted)


def _runc(where: Layout) -> Path:
    # Its version is whatever the distribution has, so any one that is already unpacked will do.
    for folder in sorted(where.cache.glob("runc-*")):
        return folder
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise MissingError(f"{tool} is missing: runc is taken from the Debian or Ubuntu package of that name")
    where.cache.mkdir(parents=True, exist_ok=True)
    with step("fetch runc"), tempfile.TemporaryDirectory(dir=where.cache, prefix=".making-") as name:
        # apt fetches as its own user, who cannot enter a private folder.
        folder = Path(name)
        folder.chmod(0o755)
        try:
            run(["apt-get", "-o", "APT::Sandbox::User=root", "download", "runc"], cwd=folder)
        except BedError as error:
            raise MissingError(f"the Debian package runc cannot be had: try apt-get update\n{error}") from error
        package = next(folder.glob("runc_*.deb"))
        version = run(["dpkg-deb", "--field", package, "Version"]).strip()
        run(["dpkg-deb", "--extract", package, folder / "made"])
        return (folder / "made" / "usr" / "sbin").rename(where.cache / f"runc-{version}")
