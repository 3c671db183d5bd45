"""How a kubeconfig says that the API server is to be reached."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cluster.kubernetes.credentials import Credentials


def _kubeconfig(folder: Path, **cluster: Any) -> str:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1", **cluster}}],
        "users": [{"name": "u", "user": {"token": "not-a-real-token"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "n"}}],
        "current-context": "x",
    }
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return str(file)


def test_a_proxy_and_the_name_in_the_certificate_are_heeded(tmp_path: Path) -> None:
    """`proxy-url` and `tls-server-name` reach every request; kubectl heeds them, too."""
    fields = {"proxy-url": "http://127.0.0.1:3128", "tls-server-name": "kubernetes.example"}
    route = Credentials(_kubeconfig(tmp_path, **fields), None, None).route()
    assert route == {"proxy": "http://127.0.0.1:3128", "server_hostname": "kubernetes.example"}


def test_without_them_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is for the HTTP client to find: it knows NO_PROXY."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:3129")
    assert Credentials(_kubeconfig(tmp_path), None, None).route() == {}
