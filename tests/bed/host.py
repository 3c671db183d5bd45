"""What the bed makes on the host outside its namespaces (links, cgroups, a few folders), and its removal."""

import ipaddress
import json
import os
import signal
from pathlib import Path

from tests.bed.errors import BedError
from tests.bed.layout import (
    BED_IP,
    BED_LINK,
    BLOCK,
    CGROUP,
    COMPILED_IN,
    HOST_IP,
    HOST_LINK,
    LINK_PREFIX,
    POD_CIDR,
    SERVICE_CIDR,
    SERVICE_IP,
    Layout,
)
from tests.bed.shell import run, wait_for


def check_addresses() -> None:
    """Raise BedError if the machine already uses a part of the bed's address block."""
    block = ipaddress.ip_network(BLOCK)
    for route in json.loads(run(["ip", "-json", "route", "show", "table", "all"])):
        target = route.get("dst", "default")
        if target == "default" or ":" in target:
            continue
        if ipaddress.ip_network(target, strict=False).overlaps(block):
            raise BedError(f"{target} is routed already: set KPROF_BED_NET to other first bytes than {BLOCK}")


def connect(pid: int) -> None:
    """Lay a cable from the host into the network namespace of the given process, with routes into the bed."""
    run(["ip", "link", "add", HOST_LINK, "type", "veth", "peer", "name", BED_LINK, "netns", str(pid)])
    run(["ip", "address", "add", f"{HOST_IP}/{LINK_PREFIX}", "dev", HOST_LINK])
    run(["ip", "link", "set", HOST_LINK, "up"])
    for target in (POD_CIDR, SERVICE_CIDR):
        run(["ip", "route", "add", target, "via", BED_IP])


def bed_network() -> list[list[str]]:
    """Return the commands that set up the inner end of the cable and the service address."""
    return [
        ["ip", "link", "set", "lo", "up"],
        ["ip", "address", "add", f"{SERVICE_IP}/32", "dev", "lo"],
        ["ip", "address", "add", f"{BED_IP}/{LINK_PREFIX}", "dev", BED_LINK],
        ["ip", "link", "set", BED_LINK, "up"],
    ]


def cgroup_folders(name: str = CGROUP) -> list[Path]:
    """Return the folder of that name, or the bed's own, in every cgroup hierarchy of the machine, there or not."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(mount[1]) / name for mount in mounts if mount[2] in ("cgroup", "cgroup2")]


def missing_folders() -> list[str]:
    """Return the mount points that this machine lacks, outer ones first."""
    missing: dict[str, None] = {}
    for name in COMPILED_IN:
        chain = [path for path in (Path(name), *Path(name).parents) if not path.exists()]
        missing.update(dict.fromkeys(str(path) for path in reversed(chain)))
    return list(missing)


def make_folders(missing: list[str]) -> None:
    """Make the bed's cgroups and the given mount points."""
    for folder in [*cgroup_folders(), *(Path(name) for name in missing)]:
        folder.mkdir(exist_ok=True)


def started_at(pid: int) -> str | None:
    """Return when the process started, in clock ticks since boot, or None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def children(pid: int) -> list[int]:
    """Return the ids of the processes that this process of ours has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kill(pid: int, started: str) -> None:
    """Kill process 1 of the bed, and with it all others, unless its id belongs to another process by now."""
    if started_at(pid) != started:
        return
    # The handle keeps the id from being reused between the check and the signal.
    handle = os.pidfd_open(pid)
    try:
        if started_at(pid) == started:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    finally:
        os.close(handle)
    wait_for("process 1 of the bed is gone", lambda: started_at(pid) != started, seconds=20)


def disconnect() -> None:
    """Remove the cable and the routes that go with it."""
    link = Path(f"/sys/class/net/{HOST_LINK}")
    if link.exists():
        try:
            run(["ip", "link", "delete", HOST_LINK])
        except BedError:
            # The kernel removes it too once the other end's namespace is gone, and may have been first.
            if link.exists():
                raise


def remove_folders(made: list[str]) -> None:
    """Remove the cgroups and the mount points that make_folders made; raise BedError if one stays."""
    remove_cgroups(CGROUP)
    for name in reversed(made):
        if Path(name).exists():
            Path(name).rmdir()


def remove_cgroups(name: str) -> None:
    """Remove the cgroups of that name and those below them; raise BedError if one stays."""

    def gone() -> bool:
        for top in cgroup_folders(name):
            for folder, _, _ in os.walk(top, topdown=False):
                try:
                    Path(folder).rmdir()
                except OSError:
                    return False
        return True

    # A cgroup lingers until the kernel has buried the last of its processes.
    wait_for(f"the cgroups {name} are empty", gone, seconds=20)


def traces(where: Layout, namespaces: dict[str, str], made: list[str]) -> list[str]:
    """Return a line for each thing of the bed that is still on the machine."""
    found = [f"cgroup {folder}" for folder in cgroup_folders() if folder.exists()]
    found += [f"folder {name}" for name in [*made, str(where.state)] if Path(name).exists()]
    if Path(f"/sys/class/net/{HOST_LINK}").exists():
        found.append(f"link {HOST_LINK}")
    found += [f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if str(where.state) in line]
    block = ipaddress.ip_network(BLOCK)
    for route in json.loads(run(["ip", "-json", "route"])):
        target = route.get("dst", "default")
        if target != "default" and ipaddress.ip_network(target, strict=False).overlaps(block):
            found.append(f"route {target}")
    for process in Path("/proc").glob("[0-9]*"):
        for kind, inode in namespaces.items():
            try:
                if started_at(int(process.name)) and str((process / "ns" / kind).readlink()) == inode:
                    found.append(f"process {process.name} in {inode}")
            except OSError:
                continue
    return found
