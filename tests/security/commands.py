"""kprof on a terminal of its own, and kprof within the test's process, where a terminal does not matter."""

import contextlib
import io
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from orchestrator.cli.app import main

COLUMNS = "160"
RUN_SECONDS = 60.0


def environment(folder: Path, kubeconfig: Path | None, **more: str) -> dict[str, str]:
    """Return the environment of a kprof that is at home in a folder and knows one cluster at most."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KPROF_")}
    own = {
        "KUBECONFIG": str(kubeconfig or folder / "no-kubeconfig"),
        "KPROF_STORE": f"sqlite:///{folder / 'kprof.db'}",
        "KPROF_STATE": str(folder / "state"),
        "COLUMNS": COLUMNS,
    }
    return kept | own | more


class _Terminal(io.TextIOWrapper):
    """Says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def inside(variables: Mapping[str, str], *arguments: str, terminal: bool = False) -> tuple[int, bytes]:
    """Run `kprof ARGUMENTS` here; returns its exit code, and what it wrote to stdout and stderr.

    `terminal` lets both say that they are one.
    """
    if arguments[0] in {"sweep", "doctor", "clean"}:
        # The client library reads KUBECONFIG once, when it is imported.
        arguments = (*arguments, "--kubeconfig", variables["KUBECONFIG"])
    out = io.BytesIO()
    stream = (_Terminal if terminal else io.TextIOWrapper)(out, encoding="utf-8", write_through=True)
    with (
        mock.patch.dict(os.environ, variables, clear=True),
        mock.patch.object(sys, "argv", ["kprof", *arguments]),
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
    ):
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0), out.getvalue()


def on_terminal(variables: Mapping[str, str], *arguments: str, cwd: Path) -> tuple[int, bytes]:
    """Run `kprof ARGUMENTS` as a process whose input and output are a terminal; returns exit code and output."""
    ours, theirs = pty.openpty()
    chunks: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # the last process of the terminal has gone
            while chunk := os.read(ours, 1 << 16):
                chunks.append(chunk)

    reader = threading.Thread(target=read, name="terminal", daemon=True)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", *arguments],
            cwd=cwd,
            env={**variables, "TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        reader.start()
        try:
            code = process.wait(RUN_SECONDS)
        finally:
            process.kill()
            process.wait()
        reader.join(RUN_SECONDS)
    finally:
        os.close(ours)
    return code, b"".join(chunks)
