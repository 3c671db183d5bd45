"""Where the bed keeps things and which names and addresses it uses."""

import os
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]

NODE = "kprof-bed"
# Two beds run side by side when they differ in name and in NET below.
NAME = os.environ.get("KPROF_BED_NAME", "kprof-bed")
CGROUP = NAME
HOST_LINK = f"{NAME.replace('-', '')[:14]}0"
BED_LINK = f"{NAME.replace('-', '')[:14]}1"
SIMULATOR_IMAGE = "docker.io/kprof/vllm-simulator:dev"
KPROF_IMAGE = "docker.io/kprof/kprof:dev"
PAUSE_IMAGE = "docker.io/kprof/pause:1"

# Folders whose paths are compiled into kubelet, containerd or libcni: the bed covers each with its own tmpfs.
COMPILED_IN = ("/run/containerd", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers")

# The first two bytes of every address of the bed; another value serves where the default is taken.
NET = os.environ.get("KPROF_BED_NET", "10.214")
BLOCK = f"{NET}.0.0/16"
HOST_IP = f"{NET}.0.1"
BED_IP = f"{NET}.0.2"
LINK_PREFIX = 30
SERVICE_CIDR = f"{NET}.16.0/24"
SERVICE_IP = f"{NET}.16.1"
POD_CIDR = f"{NET}.128.0/20"
SERVER = f"https://{BED_IP}:443"


@dataclass(frozen=True)
class Layout:
    """The two folders of the bed: state (one run of the bed) and cache (kept between runs)."""

    state: Path
    cache: Path

    @property
    def data(self) -> Path:
        """The folder that is a tmpfs inside the bed and stays empty outside it."""
        return self.state / "data"

    @property
    def logs(self) -> Path:
        """The folder with one log per component."""
        return self.state / "logs"

    @property
    def held(self) -> Path:
        """The folder that names the programs that shall stay down."""
        return self.state / "held"

    @property
    def pki(self) -> Path:
        """The folder of keys, certificates and kubeconfigs."""
        return self.state / "pki"

    @property
    def config(self) -> Path:
        """The folder of configuration files."""
        return self.state / "config"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, complete in one file."""
        return self.state / "kubeconfig"

    @property
    def record(self) -> Path:
        """The file that says what this run of the bed has made outside itself."""
        return self.state / "bed.json"


def layout() -> Layout:
    """Return the folders that the environment asks for, or the default ones."""
    home_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(os.environ.get("KPROF_CACHE") or Path(home_cache) / "kprof")
    return Layout(Path(os.environ.get("KPROF_BED_STATE", f"/run/{NAME}")).absolute(), cache.absolute() / "bed")
