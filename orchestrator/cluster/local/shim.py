"""The parent of one local pod: starts the command, writes its log and status, enforces the deadline.

It runs in a session of its own, so that it outlives kprof: a kprof that was killed finds the pod's state in files,
as it would find it in an API server. Usage: `python -m orchestrator.cluster.local.shim FOLDER`.
Standard library only, and started with a bare interpreter: it must come up at once.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


class Terminated(Exception):  # noqa: N818 - a request, not an error
    """SIGTERM arrived: the pod is being deleted."""


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _write_status(folder: Path, **fields: object) -> None:
    started = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]
    draft = folder / "status.json.new"
    draft.write_text(json.dumps({"shim": os.getpid(), "shim_started": started, **fields}))
    draft.replace(folder / "status.json")


def _die_with_parent() -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _reap_orphans() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _kill_descendants() -> None:
    # Workers may have left the group (vLLM's engine core is a session of its own on some versions).
    for _ in range(100):
        children = _children(os.getpid())
        if not children:
            return
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap_orphans()
        time.sleep(0.02)


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def _stop(process: "subprocess.Popen[bytes]", grace_seconds: float) -> None:
    for sign, patience in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 10.0)):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            return
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        return


def run(folder: Path) -> None:
    """Run the command of `FOLDER/pod.json` to its end; status and log land in the same folder."""
    spec = json.loads((folder / "pod.json").read_text())

    def terminate(_signal: int, _frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    _write_status(folder, phase="Pending")
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    reason, exit_code = "", None
    with (folder / "log").open("ab") as log:
        try:
            process = subprocess.Popen(
                spec["argv"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                process_group=0,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
            )
        except OSError as error:
            _write_status(folder, phase="Failed", reason="StartError", message=str(error), exit_code=128)
            return
        _write_status(folder, phase="Running", pid=process.pid)
        try:
            exit_code = process.wait(spec["deadline_seconds"])
        except subprocess.TimeoutExpired:
            reason = "DeadlineExceeded"
            _stop(process, spec["grace_seconds"])
        except Terminated:
            reason = "Deleted"
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            _stop(process, spec["grace_seconds"])
        _kill_descendants()
    code = process.returncode if exit_code is None else exit_code
    shown = 128 - code if code is not None and code < 0 else code
    phase = "Succeeded" if shown == 0 and not reason else "Failed"
    _write_status(folder, phase=phase, reason=reason, exit_code=shown)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
