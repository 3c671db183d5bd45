"""What a machine must offer to have a bed."""

import os
import shutil

from tests.bed.errors import BedError, MissingError
from tests.bed.host import cgroup_folders
from tests.bed.shell import run

TOOLS = {"unshare": "util-linux", "mount": "mount", "ip": "iproute2", "openssl": "openssl"}


def check_machine() -> None:
    """Raise MissingError with the first part that this machine lacks and how to get it."""
    if os.geteuid() != 0:
        raise MissingError("root is missing: run this as root, for example with sudo -E")
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            raise MissingError(f"{tool} is missing: install the package {package}")
    if not cgroup_folders():
        raise MissingError("the cgroup file system is missing: mount it at /sys/fs/cgroup")
    try:
        run(
            [
                "unshare",
                "--mount",
                "--net",
                "--pid",
                "--fork",
                "--mount-proc",
                "ip",
                "link",
                "set",
                "lo",
                "up",
            ]
        )
    except BedError as error:
        raise MissingError(f"namespaces are missing: use a machine that allows unshare\n{error}") from error
