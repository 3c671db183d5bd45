"""A client certificate that runs out while kprof works: the API server takes the next one only on a new connection."""

import json
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from orchestrator.cluster.kubernetes.adapter import KubernetesCluster
from orchestrator.errors import ClusterError
from tests.faults.statuses import Object, status

_User = Callable[["_Authority"], Object]
OLD, NEW = "old", "new"
# The login command prints what the file `current` names.
LOGIN = """
import json, pathlib
here = pathlib.Path(__file__).parent
name = (here / "current").read_text()
files = {"clientCertificateData": f"{name}.crt", "clientKeyData": f"{name}.key"}
status = {field: (here / file).read_text() for field, file in files.items()}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
"""


class _Authority:
    """A certificate authority in a folder, and the API server that trusts it until a certificate has run out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.presented: list[str] = []
        self.expired: set[str] = set()
        self.port = 0
        self._openssl("req", "-x509", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca")
        self._issue("server", "subjectAltName=IP:127.0.0.1")
        for name in (OLD, NEW):
            self._issue(name, "extendedKeyUsage=clientAuth")

    def _openssl(self, *words: str) -> None:
        made = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes") if words[0] == "req" else ()
        subprocess.run(["openssl", *words, *made, "-days", "1"], cwd=self.folder, check=True, capture_output=True)

    def _issue(self, name: str, extension: str) -> None:
        (self.folder / "extensions").write_text(f"{extension}\n")
        self._openssl("req", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "extensions")
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *signed)

    def rotate(self, certificate: str, key: str | None = None) -> None:
        """Put a certificate where the kubeconfig and the login command find it, with a key that may be another's."""
        (self.folder / "current").write_text(certificate)
        shutil.copy(self.folder / f"{certificate}.crt", self.folder / "client.crt")
        shutil.copy(self.folder / f"{key or certificate}.key", self.folder / "client.key")

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Judge the certificate at each request, as an API server does."""
        assert request.transport is not None
        subject = request.transport.get_extra_info("ssl_object").getpeercert()["subject"]
        name = next(str(value) for ((field, value),) in subject if field == "commonName")
        self.presented.append(name)
        if name in self.expired:
            return web.json_response(status(401, "Unauthorized", "certificate has expired"), status=401)
        return web.json_response({})

    def kubeconfig(self, user: Object) -> str:
        """Write a kubeconfig that leads here."""
        where = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": str(self.folder / "ca.crt")}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": where}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path = self.folder / "kubeconfig"
        path.write_text(json.dumps(config))
        return str(path)


@pytest.fixture
async def authority(tmp_path: Path) -> AsyncIterator[_Authority]:
    """Return an authority with its API server; the old certificate is the one in use."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    made = _Authority(tmp_path)
    made.rotate(OLD)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.crt"))
    tls.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    runner = web.ServerRunner(web.Server(made.answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    made.port = int(runner.addresses[0][1])
    yield made
    await runner.cleanup()


def _files(authority: _Authority) -> Object:
    client = authority.folder / "client"
    return {"client-certificate": f"{client}.crt", "client-key": f"{client}.key"}


def _login(authority: _Authority) -> Object:
    script = authority.folder / "login.py"
    script.write_text(LOGIN)
    command = {"command": sys.executable, "args": [str(script)], "interactiveMode": "Never"}
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", **command}}


@pytest.mark.parametrize("user", [_files, _login], ids=["rotated files", "login command"])
async def test_a_certificate_that_ran_out_is_renewed(authority: _Authority, user: _User) -> None:
    """One call with the old certificate, which is repeated with the new one; later calls begin with the new one."""
    async with KubernetesCluster.connect(authority.kubeconfig(user(authority)), None, None) as cluster:
        await cluster.transport.call("GET", "/x")
        authority.expired.add(OLD)
        authority.rotate(NEW)
        await cluster.transport.call("GET", "/x")
        await cluster.transport.call("GET", "/x")
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with cluster.transport.websocket("/portforward", {}, "v4.channel.k8s.io"):
                pass
    assert authority.presented == [OLD, OLD, NEW, NEW, NEW]


async def test_an_authority_without_key_identifiers_is_trusted(
    authority: _Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes' own tools take a cluster's certificates as they are; Python 3.13 and later are strict by default."""
    usual = ssl.create_default_context

    def as_in_python_3_13(*arguments: Any, **settings: Any) -> ssl.SSLContext:
        context = usual(*arguments, **settings)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", as_in_python_3_13)
    async with KubernetesCluster.connect(authority.kubeconfig(_files(authority)), None, None) as cluster:
        await cluster.transport.with_outage(5).call("GET", "/x")
    assert authority.presented == [OLD]


async def test_a_certificate_that_is_half_rotated(authority: _Authority) -> None:
    """A new certificate beside the old key leaves what was there; the call is repeated until the two fit."""
    async with KubernetesCluster.connect(authority.kubeconfig(_files(authority)), None, None) as cluster:
        await cluster.transport.call("GET", "/x")
        authority.expired.add(OLD)
        authority.rotate(NEW, OLD)
        with pytest.raises(ClusterError, match="certificate or key"):
            await cluster.transport.with_outage(0.5).call("GET", "/x")
        authority.rotate(NEW)
        await cluster.transport.call("GET", "/x")
    assert set(authority.presented[:-1]) == {OLD}
    assert authority.presented[-1] == NEW
