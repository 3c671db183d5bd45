"""BuildKit, which is what `docker build` runs: it is started for one build, and ends with it."""

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bed import binaries
from tests.bed.binaries import Component
from tests.bed.errors import BedError
from tests.bed.host import children, remove_cgroups, started_at
from tests.bed.layout import NAME, Layout
from tests.bed.shell import run, tail, wait_for

_MODULE = "github.com/moby/buildkit"
BUILDKIT = Component(
    "buildkit",
    _MODULE,
    (f"{_MODULE}/cmd/buildkitd", f"{_MODULE}/cmd/buildctl"),
    variables=(f"{_MODULE}/version.Version=v{{version}}",),
)
READY_S = 30.0
GONE_S = 20.0
# The host's network, because a step of the build asks the package index.
SETTINGS = """\
root = "{folder}/root"
[grpc]
  address = ["unix://{folder}/socket"]
[worker.containerd]
  enabled = false
[worker.oci]
  enabled = true
  networkMode = "host"
  defaultCgroupParent = "{cgroup}"
"""


def build_dockerfile(
    where: Layout, context: Path, dockerfile: Path, *, name: str, base: tuple[str, Path], target: Path
) -> None:
    """Build a Dockerfile into a tar file that `docker load` takes.

    The base is the name after FROM and the folder of the OCI layout that stands in for it. Raises BedError with the end
    of the build's output if a step fails, MissingError where BuildKit cannot be had.
    """
    replaced, stand_in = base
    digest = json.loads((stand_in / "index.json").read_text())["manifests"][0]["digest"]
    programs = binaries._cached(where, BUILDKIT)
    with _daemon(programs / "buildkitd", binaries._runc(where)) as address:
        run(
            [
                programs / "buildctl",
                *("--addr", address, "build", "--progress=plain", "--frontend=dockerfile.v0"),
                *(f"--local=context={context}", f"--local=dockerfile={dockerfile.parent}"),
                f"--opt=filename={dockerfile.name}",
                *(f"--oci-layout=base={stand_in}", f"--opt=context:{replaced}=oci-layout://base@{digest}"),
                f"--output=type=docker,name={name},dest={target}",
            ]
        )


@contextlib.contextmanager
def _daemon(program: Path, runc: Path) -> Iterator[str]:
    """Run BuildKit in namespaces of its own, so that no mount and no process outlives it."""
    with tempfile.TemporaryDirectory(prefix="kprof-build-") as name:
        folder = Path(name)
        cgroup = f"{NAME}-build-{os.getpid()}"
        (folder / "buildkitd.toml").write_text(SETTINGS.format(folder=folder, cgroup=cgroup))
        argv = ["setpriv", "--pdeathsig=KILL"]  # a test run that is killed takes it along
        argv += ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with (folder / "log").open("wb") as log:
            daemon = subprocess.Popen(
                [*argv, str(program), "--config", str(folder / "buildkitd.toml")],
                env=os.environ | {"PATH": f"{runc}:{os.environ['PATH']}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_for("BuildKit answers", lambda: _answers(daemon, folder), seconds=READY_S)
            yield f"unix://{folder}/socket"
        finally:
            inner = children(daemon.pid) if daemon.returncode is None else []
            daemon.kill()
            daemon.wait()
            wait_for("BuildKit is gone", lambda: not any(started_at(pid) for pid in inner), seconds=GONE_S)
            remove_cgroups(cgroup)


def _answers(daemon: subprocess.Popen[bytes], folder: Path) -> bool:
    if daemon.poll() is not None:
        raise BedError(f"BuildKit ended:\n{tail(folder / 'log')}")
    return (folder / "socket").exists()
