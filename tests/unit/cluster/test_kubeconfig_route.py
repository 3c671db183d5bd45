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


@pytest.mark.parametrize(("besides", "expected"), [("", "http://127.0.0.1:3129"), ("10.0.0.1,127.0.0.1", None)])
def test_without_them_the_environment_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, besides: str, expected: str | None
) -> None:
    """A proxy of the environment leads to the API server, unless NO_PROXY names it."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:3129")
    monkeypatch.setenv("NO_PROXY", besides)
    assert Credentials(_kubeconfig(tmp_path), None, None).route().get("proxy") == expected
