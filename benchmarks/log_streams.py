"""What it costs to follow a thousand logs at once over TLS: memory, processor, requests, and how calls fare meanwhile.

    python benchmarks/log_streams.py [--streams 1000] [--seconds 60] [--silent] [--tls-buffer KIB]

The server is another process; every stream gives one line a second, or with --silent one line and no more. Everything
goes through one KubernetesCluster, in a process that does nothing else. With --silent a stream is taken up anew after
30 s of silence instead of 300, so that a short run sees it happen. --tls-buffer tries another read buffer for each
TLS connection than asyncio's 256 KiB.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from orchestrator.cluster.kubernetes.adapter import KubernetesCluster
from orchestrator.cluster.kubernetes.logs import LOG_IDLE_SECONDS
from orchestrator.cluster.port import Phase, PodSnapshot

SILENT_IDLE_SECONDS = 30.0
OPENING_SECONDS = 60.0
CALL_PAUSE_SECONDS = 0.1


class Server:
    """Serves the logs, which grow while they are read, and tells when it was asked for them."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._asked: list[float] = []
        self._lines: dict[str, list[tuple[str, bytes]]] = {}
        self._over = False

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a log, what was asked, or that a pod is not there."""
        if request.path == "/asked":
            return web.json_response({"logs": self._asked})
        if request.path == "/end":
            self._over = True
            return web.json_response({"lines": sum(map(len, self._lines.values()))})
        if request.path.endswith("/log"):
            self._asked.append(time.monotonic())
            return await self._log(request, request.path.split("/")[-2].rpartition("-")[2])
        return web.json_response({"kind": "Status", "code": 404, "reason": "NotFound"}, status=404)

    async def _log(self, request: web.BaseRequest, number: str) -> web.StreamResponse:
        lines, since = self._lines.setdefault(number, []), request.query.get("sinceTime", "")[:19]
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        sent = 0
        while True:
            if not lines or (sent == len(lines) and not self._silent and not self._over):
                text = b"log %s line %d\n" % (number.encode(), len(lines))
                lines.append((f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z", text))
            for stamp, line in lines[sent:]:
                if stamp[:19] >= since:
                    await response.write(stamp.encode() + b" " + line)
            sent = len(lines)
            if self._over or request.query["follow"] == "false":
                return response
            await asyncio.sleep(1.0 if sent > 1 else random.random())


async def serve(folder: Path, *, silent: bool) -> None:
    """Serve on a free port of loopback, say where, and go on until the process is ended."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    runner = web.ServerRunner(web.Server(Server(silent=silent).handle, handler_cancellation=True))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls, backlog=4096).start()
    print(f"https://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


@contextmanager
def serving(folder: Path, *, silent: bool) -> Iterator[Path]:
    """Run the server in a process of its own; yields a kubeconfig that leads to it."""
    subject = ["-subj", "/CN=benchmark", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", "key.pem", "-out", "cert.pem"]
    command = ["openssl", "req", "-x509", "-nodes", "-days", "2", *made, *subject]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    command = [sys.executable, __file__, "--serve", str(folder), *(["--silent"] if silent else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            cluster = {"server": server.stdout.readline().strip(), "certificate-authority": str(folder / "cert.pem")}
            document = {
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": {"token": "token-of-the-benchmark"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
            (folder / "kubeconfig").write_text(json.dumps(document))  # JSON is YAML
            yield folder / "kubeconfig"
        finally:
            server.terminate()


def resident_mib(name: str = "VmRSS") -> float:
    """Return this process's resident memory, or its peak as VmHWM."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024


@dataclass
class Readers:
    """The followed logs: how many lines of each were read, and what was wrong with them."""

    cluster: KubernetesCluster
    streams: int
    idle_seconds: float
    lines: dict[int, int] = field(default_factory=dict)
    wrong: int = 0
    over: bool = False

    async def follow(self, number: int) -> None:
        """Follow one log to its end; each line must be the one after the last."""
        pod = PodSnapshot(f"kp-bench-{number}", str(number), {}, Phase.RUNNING)
        async for chunk in self.cluster.logs(pod, lambda: self.over, self.idle_seconds):
            if chunk.data:
                at = self.lines.get(number, 0)
                self.wrong += chunk.gap or chunk.data != b"log %d line %d\n" % (number, at)
                self.lines[number] = at + 1

    async def opened(self) -> float:
        """Wait until every log gave its first line; returns the seconds."""
        begin = time.perf_counter()
        while len(self.lines) < self.streams:
            assert time.perf_counter() - begin < OPENING_SECONDS, f"only {len(self.lines)} logs were opened"
            await asyncio.sleep(0.01)
        return time.perf_counter() - begin


async def calls(cluster: KubernetesCluster, seconds: float) -> list[float]:
    """Make short calls one after the other for so long; returns how long each took."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        await cluster.get("kp-bench-0")
        took.append(time.perf_counter() - begin)
        await asyncio.sleep(CALL_PAUSE_SECONDS)
    return sorted(took)


async def measure(config: Path, streams: int, seconds: int, *, silent: bool) -> None:
    """Open the logs, look at them for so long, read them to their end, and print what it took."""
    async with KubernetesCluster.connect(str(config), None, None) as cluster:
        await cluster.get("kp-bench-0")
        before = resident_mib()
        readers = Readers(cluster, streams, SILENT_IDLE_SECONDS if silent else LOG_IDLE_SECONDS)
        async with asyncio.TaskGroup() as group:
            for number in range(streams):
                group.create_task(readers.follow(number))
            opening = await readers.opened()
            known = await cluster.transport.call("GET", "/asked")
            wall, cpu = time.perf_counter(), time.process_time()
            took = await calls(cluster, seconds)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            memory = resident_mib()
            asked = (await cluster.transport.call("GET", "/asked"))["logs"][len(known["logs"]) :]
            readers.over = True
            sent = (await cluster.transport.call("POST", "/end"))["lines"]
    figures = {
        "resident memory": f"{memory:.0f} MiB, {before:.0f} before, peak {resident_mib('VmHWM'):.0f}",
        "for each log": f"{(memory - before) * 1024 / streams:.0f} KiB",
        "processor": f"{cpu / wall:.1%} of a core",
        "all logs open after": f"{opening:.1f} s",
        "requests for logs": _rate(asked, wall, readers.idle_seconds),
        "a short call meanwhile": f"median {_ms(took, 0.5)}, p99 {_ms(took, 0.99)}, longest {_ms(took, 1)}",
        "lines": f"{sum(readers.lines.values())} of {sent} read, {readers.wrong} of them wrong",
    }
    print("\n".join(f"{name:<24}{text}" for name, text in figures.items()))
    assert sum(readers.lines.values()) == sent
    assert not readers.wrong


def _rate(asked: list[float], wall: float, idle_seconds: float) -> str:
    most = max((sum(at <= other < at + 1 for other in asked) for at in asked), default=0)
    scaled = len(asked) / wall * idle_seconds / LOG_IDLE_SECONDS
    return f"{len(asked)} in {wall:.0f} s, at most {most} in a second; {scaled:.1f}/s with the real idle limit"


def _ms(took: list[float], share: float) -> str:
    return f"{took[min(len(took) - 1, int(len(took) * share))] * 1000:.0f} ms"


def main() -> None:
    """Start the server, follow the logs and print the figures."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--streams", type=int, default=1000)
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--silent", action="store_true")
    options.add_argument("--tls-buffer", type=int, metavar="KIB")
    options.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve, silent=given.silent))
        return
    if given.tls_buffer:
        from asyncio.sslproto import SSLProtocol

        SSLProtocol.max_size = given.tls_buffer << 10
    kind = "silent" if given.silent else "1 line/s each"
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{given.streams} logs over TLS, {kind}, {given.seconds} s")
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), silent=given.silent) as config:
        asyncio.run(measure(config, given.streams, given.seconds, silent=given.silent))


if __name__ == "__main__":
    main()
