"""A pod that really runs the project's simulator, as a process of this machine."""

import asyncio
import os
import signal
import socket
import sys

from orchestrator.cluster.manifest import unescape
from orchestrator.cluster.port import HTTP_PORT
from tests.faults.kubelet import PodPlay

STOP_SECONDS = 10.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _local(word: str, port: int) -> str:
    if word.startswith("--host="):
        return "--host=127.0.0.1"
    return f"--port={port}" if word == f"--port={HTTP_PORT}" else unescape(word)


async def simulator(pod: PodPlay) -> None:
    """Run what the pod says; what it prints is the pod's log, and its exit code the container's."""
    container = pod.object["spec"]["containers"][0]
    pod.port = _free_port()
    words = [*container["command"][1:], *(_local(word, pod.port) for word in container["args"])]
    environment = {entry["name"]: unescape(entry["value"]) for entry in container["env"] if "value" in entry}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "orchestrator.simulator",
        *words,
        env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"} | environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        process_group=0,
    )
    pod.run()
    try:
        assert process.stdout is not None
        while data := await process.stdout.read(1 << 16):
            pod.say(data)
        pod.exit(await process.wait())
    finally:
        await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
