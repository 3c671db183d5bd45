"""The node: configuration and command lines of containerd, the CNI bridge and the kubelet."""

import json

from tests.bed.binaries import Binaries
from tests.bed.layout import BED_IP, CGROUP, NODE, PAUSE_IMAGE, POD_CIDR, Layout

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
MAX_PODS = 110
GPU = "nvidia.com/gpu"
GPU_LABELS = {
    "nvidia.com/gpu.present": "true",
    "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
    "nvidia.com/gpu.memory": "81559",
}

# What the kubelet writes to the kernel of the whole machine; the bed shows it files with these values instead.
KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}

# restrict_oom_score_adj: without CAP_SYS_RESOURCE the kernel refuses the scores that containerd asks for.
_CONTAINERD = """\
version = 3
root = "{data}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.erofs"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{data}/opt"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{pause}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{cni}"]
    conf_dir = "{config}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "{runc}/runc"
        SystemdCgroup = false
"""


def write_config(where: Layout, binaries: Binaries) -> None:
    """Write the configuration files of the node."""
    (where.config / "cni").mkdir(parents=True)
    names = {"data": where.data, "config": where.config, "cni": binaries.cni, "runc": binaries.runc}
    text = _CONTAINERD.format(socket=CONTAINERD_SOCKET, pause=PAUSE_IMAGE, **names)
    (where.config / "containerd.toml").write_text(text)
    (where.config / "cni" / "10-bed.conflist").write_text(json.dumps(_network(where)))
    (where.config / "resolv.conf").write_text("# The bed has no name service.\n")
    (where.config / "kubelet.json").write_text(json.dumps(_kubelet(where), indent=1))


def commands(where: Layout, binaries: Binaries) -> dict[str, list[str]]:
    """Return the argument list of each program of the node."""
    return {
        "containerd": [f"{binaries.containerd}/containerd", f"--config={where.config}/containerd.toml"],
        "kubelet": [
            f"{binaries.kubernetes}/kubelet",
            f"--config={where.config}/kubelet.json",
            f"--kubeconfig={where.pki}/kubelet.kubeconfig",
            f"--root-dir={where.data}/kubelet",
            f"--cert-dir={where.data}/kubelet-pki",
            f"--hostname-override={NODE}",
            f"--node-ip={BED_IP}",
        ],
    }


def _network(where: Layout) -> dict[str, object]:
    ipam = {
        "type": "host-local",
        "dataDir": f"{where.data}/cni",
        "ranges": [[{"subnet": POD_CIDR}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    # Without masquerading no iptables is needed; the host has a route to the pods instead.
    bridge = {"type": "bridge", "bridge": "pods0", "isGateway": True, "ipMasq": False, "ipam": ipam}
    return {"cniVersion": "1.0.0", "name": "bed", "plugins": [bridge]}


def _kubelet(where: Layout) -> dict[str, object]:
    tiny = {
        "memory.available": "50Mi",
        "nodefs.available": "1%",
        "imagefs.available": "1%",
        "nodefs.inodesFree": "1%",
    }
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{where.pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{where.pki}/kubelet.crt",
        "tlsPrivateKeyFile": f"{where.pki}/kubelet.key",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "podLogsDir": f"{where.data}/pods",
        "resolvConf": f"{where.config}/resolv.conf",
        "makeIPTablesUtilChains": False,
        "maxPods": MAX_PODS,
        "serializeImagePulls": False,
        "nodeStatusUpdateFrequency": "1s",
        "syncFrequency": "5s",
        "evictionHard": tiny,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }
