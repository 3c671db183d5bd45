"""The login command of a kubeconfig hangs, or fails for a while: it is no better than the network."""

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tenacity import wait_random_exponential

from orchestrator.cluster.kubernetes import lease, transport
from orchestrator.cluster.kubernetes import login as logins
from orchestrator.cluster.kubernetes.adapter import KubernetesCluster
from orchestrator.errors import ClusterError
from tests.e2e.waiting import eventually
from tests.fakes.cluster import SIMULATOR_LOG
from tests.faults.faults import refusal
from tests.faults.kubelet import PodPlay
from tests.faults.server import FaultServer
from tests.faults.statuses import Object
from tests.faults.sweeping import Bench, on_bench

LOGIN_SECONDS = 3.0  # a login that hangs; one that works may take longer on a loaded machine
HANG_SECONDS = 25
END_SECONDS = 15  # to be gone, long before a command that hangs would end by itself
HURRIED_EXIT_SECONDS = 10.0  # it gives up after 3; waiting for the login would take 25
FACTOR = 5.0
SCRIPT = f"""
import os, pathlib, sys, time
here = pathlib.Path(__file__).parent
with (here / "pids").open("a") as pids:
    pids.write(f"{{os.getpid()}}\\n")
mode = (here / "mode").read_text()
if mode == "hangs":
    time.sleep({HANG_SECONDS})
if mode == "fails":
    sys.exit("the login server is away")
print((here / "credential").read_text())
"""
CREDENTIAL = {
    "apiVersion": "client.authentication.k8s.io/v1",
    "kind": "ExecCredential",
    "status": {"token": "token-of-the-login-command"},
}


@dataclass
class _Login:
    """A login command that does what it is told to."""

    folder: Path

    @property
    def user(self) -> Object:
        """Return the user of a kubeconfig who logs in so."""
        words = [str(self.folder / "login.py")]
        plugin = {"apiVersion": CREDENTIAL["apiVersion"], "command": sys.executable, "args": words}
        return {"exec": plugin | {"interactiveMode": "Never"}}

    def do(self, mode: str) -> None:
        """Say what the next call does: `works`, `fails` or `hangs`."""
        (self.folder / "mode").write_text(mode)

    def started(self) -> list[int]:
        """Return the process of each call so far."""
        file = self.folder / "pids"
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    def living(self) -> list[int]:
        """Return those that have not ended."""
        return [pid for pid in self.started() if _lives(pid)]


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture
def login(tmp_path: Path) -> _Login:
    """Return the command, which works at first."""
    (tmp_path / "login.py").write_text(SCRIPT)
    (tmp_path / "credential").write_text(json.dumps(CREDENTIAL))
    made = _Login(tmp_path)
    made.do("works")
    return made


@pytest.mark.fault(4, "R")
@pytest.mark.parametrize("how", ["hangs", "fails"])
async def test_fault_04_a_login_command_that_hangs(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: _Login, how: str
) -> None:
    """Ends a login command after half a minute and asks again, if its credentials were good before."""
    server.user = login.user
    async with KubernetesCluster.connect(str(server.kubeconfig(tmp_path)), None, None) as cluster:
        assert await cluster.get("x") is None
        before = len(login.started())
        login.do(how)
        old = server.faults.add(refusal(401, "Unauthorized", "Unauthorized", times=1))

        async def called() -> bool:
            return len(login.started()) > before

        with monkeypatch.context() as early:  # for that call only
            early.setattr(logins, "LOGIN_SECONDS", LOGIN_SECONDS)
            asking = asyncio.create_task(cluster.get("x"))
            await eventually("the command is called", called)
        login.do("works")
        assert await asking is None
        assert old.met == 1

    async def ended() -> bool:
        return not login.living()

    await eventually("no login command is left", ended, seconds=END_SECONDS)


@pytest.mark.fault(4, "A")
async def test_fault_04_a_login_command_that_hangs_from_the_start(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: _Login
) -> None:
    """Says so after half a minute when the login command gives no credentials at all."""
    monkeypatch.setattr(logins, "LOGIN_SECONDS", LOGIN_SECONDS)
    login.do("hangs")
    server.user = login.user
    path = str(server.kubeconfig(tmp_path))
    with pytest.raises(ClusterError, match="kubeconfig"):
        await asyncio.wait_for(asyncio.to_thread(KubernetesCluster.connect, path, None, None), 20)

    async def ended() -> bool:
        return not login.living()

    await eventually("no login command is left", ended, seconds=END_SECONDS)


@pytest.mark.fault(32, "A")
def test_fault_32_sigterm_while_a_login_command_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: _Login
) -> None:
    """Ends within 20 seconds also when the login command hangs, and leaves none of these running."""
    # Retries are timed by another clock than the loop's, so everything that takes its time here is made shorter.
    monkeypatch.setattr(transport, "HURRIED_OUTAGE_SECONDS", transport.HURRIED_OUTAGE_SECONDS / FACTOR)
    monkeypatch.setattr(transport, "_BACKOFF", wait_random_exponential(multiplier=0.25 / FACTOR, max=30 / FACTOR))
    last = transport.LAST_CALL_SECONDS / FACTOR
    monkeypatch.setattr(transport, "LAST_CALL_SECONDS", last)
    monkeypatch.setattr(lease, "LAST_CALL_SECONDS", last)
    monkeypatch.setattr(lease, "RELEASE_SECONDS", lease.RELEASE_SECONDS / FACTOR)

    async def loading(pod: PodPlay) -> None:
        pod.run()
        pod.say(SIMULATOR_LOG)
        await pod.forever()

    async def work(bench: Bench) -> None:
        clock = asyncio.get_running_loop().time
        bench.server.user = login.user
        sweeping = asyncio.create_task(bench.sweep())
        await bench.until_read()
        before = len(login.started())
        login.do("hangs")
        bench.server.faults.add(refusal(401, "Unauthorized", "Unauthorized"))
        bench.server.break_connections()

        async def called() -> bool:
            return len(login.started()) > before

        await eventually("the command is called", called)
        begin = clock()
        bench.connected[0].hurry()  # what the command does when it is told to stop
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
        assert clock() - begin <= HURRIED_EXIT_SECONDS

        async def ended() -> bool:
            return not login.living()

        await eventually("no login command is left", ended, seconds=10)

    on_bench(tmp_path, work, script=loading, factor=1)
