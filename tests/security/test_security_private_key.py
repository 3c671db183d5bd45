"""The private key of a kubeconfig is in no file of kprof's making once kprof has ended, however it ended."""

import base64
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.security.commands import environment
from tests.security.processes import files_of

CONNECT_SECONDS = 30.0


@pytest.fixture
def key(tmp_path: Path) -> tuple[bytes, bytes]:
    """Return a certificate and its key, made for this test."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a key with")
    files = tmp_path / "certificate", tmp_path / "key"
    subject = ("-subj", "/CN=somebody", "-days", "1", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    command = ["openssl", "req", "-x509", *subject, "-out", str(files[0]), "-keyout", str(files[1])]
    subprocess.run(command, check=True, capture_output=True)
    certificate, secret = (path.read_bytes() for path in files)
    files[1].unlink()
    return certificate, secret


def test_a_killed_kprof_leaves_no_private_key(tmp_path: Path, key: tuple[bytes, bytes]) -> None:
    """Killed while it speaks to the API server, it has long loaded the key, and its file is gone."""
    certificate, secret = key
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(CONNECT_SECONDS)
        user = {"client-certificate-data": certificate, "client-key-data": secret}
        path = _kubeconfig(tmp_path, f"https://127.0.0.1:{listener.getsockname()[1]}", user)
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", "clean"],
            cwd=tmp_path,
            env=environment(tmp_path, path, TMPDIR=str(temporary)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            listener.accept()[0].close()
        finally:
            process.kill()
            process.wait()
    line = secret.splitlines()[1]
    assert [name for name, content in files_of(temporary).items() if line in content] == []


def _kubeconfig(folder: Path, server: str, user: dict[str, bytes]) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {name: _base64(value) for name, value in user.items()}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
