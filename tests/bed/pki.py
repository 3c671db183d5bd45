"""The keys and certificates of one run of the bed, made with the openssl command."""

import base64
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.bed.layout import BED_IP, NODE, SERVER, SERVICE_IP, Layout
from tests.bed.shell import run

DAYS = 30


@dataclass(frozen=True)
class Identity:
    """A certificate to issue: file name, subject and the names that a server certificate is good for."""

    name: str
    subject: str
    names: str = ""
    kubeconfig: bool = False


_API_NAMES = ",".join(
    [
        "DNS:localhost",
        *(f"DNS:kubernetes{suffix}" for suffix in ("", ".default", ".default.svc", ".default.svc.cluster.local")),
        *(f"IP:{address}" for address in ("127.0.0.1", SERVICE_IP, BED_IP)),
    ]
)
IDENTITIES = (
    Identity("apiserver", "/CN=kube-apiserver", _API_NAMES),
    Identity("apiserver-kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client"),
    Identity("admin", "/O=system:masters/CN=admin", kubeconfig=True),
    Identity("scheduler", "/CN=system:kube-scheduler", kubeconfig=True),
    Identity("controller-manager", "/CN=system:kube-controller-manager", kubeconfig=True),
    Identity(
        "kubelet",
        f"/O=system:nodes/CN=system:node:{NODE}",
        f"DNS:{NODE},IP:{BED_IP},IP:127.0.0.1",
        kubeconfig=True,
    ),
)


def make(where: Layout) -> None:
    """Write the authority, all certificates, the service-account keys and the kubeconfigs."""
    folder = where.pki
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    # A configuration of our own, or openssl would add the extensions of an authority to every certificate.
    settings = folder / "openssl.cnf"
    settings.write_text("[req]\ndistinguished_name = dn\n[dn]\n")
    _certificate(folder, settings, Identity("ca", "/CN=kprof-bed-ca"))
    for identity in IDENTITIES:
        _certificate(folder, settings, identity)
        if identity.kubeconfig:
            _write_kubeconfig(folder, identity.name)
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", folder / "sa.key"])
    run(["openssl", "ec", "-in", folder / "sa.key", "-pubout", "-out", folder / "sa.pub"])
    shutil.copyfile(folder / "admin.kubeconfig", where.kubeconfig)
    where.kubeconfig.chmod(0o600)


def _certificate(folder: Path, settings: Path, identity: Identity) -> None:
    argv = [
        "openssl",
        "req",
        "-x509",
        "-config",
        str(settings),
        "-newkey",
        "ec",
        "-nodes",
        "-days",
        str(DAYS),
    ]
    argv += ["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", identity.subject]
    argv += ["-keyout", str(folder / f"{identity.name}.key"), "-out", str(folder / f"{identity.name}.crt")]
    if identity.name == "ca":
        added = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"]
    else:
        argv += ["-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key")]
        added = [
            "basicConstraints=CA:FALSE",
            "keyUsage=digitalSignature",
            "extendedKeyUsage=serverAuth,clientAuth",
        ]
        if identity.names:
            added.append(f"subjectAltName={identity.names}")
    for extension in added:
        argv += ["-addext", extension]
    run(argv)


def _write_kubeconfig(folder: Path, name: str) -> None:
    def inline(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode()

    cluster = {"server": SERVER, "certificate-authority-data": inline("ca.crt")}
    user = {"client-certificate-data": inline(f"{name}.crt"), "client-key-data": inline(f"{name}.key")}
    # JSON is YAML, and the standard library writes only JSON.
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NODE, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": NODE, "context": {"cluster": NODE, "user": name, "namespace": "default"}}],
        "current-context": NODE,
    }
    target = folder / f"{name}.kubeconfig"
    target.write_text(json.dumps(document, indent=1))
    target.chmod(0o600)
