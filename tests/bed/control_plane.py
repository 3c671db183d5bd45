"""The command lines of etcd, the API server, the controller manager and the scheduler."""

import json

from tests.bed.binaries import Binaries
from tests.bed.layout import BED_IP, SERVICE_CIDR, Layout

ETCD_URL = "http://127.0.0.1:2379"
ETCD_PEER_URL = "http://127.0.0.1:2380"
AUDIT_LOG = "audit.log"
# Who asked for what, without bodies; the cluster's own programs ask all the time and are left out.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"]},
        {"level": "None", "users": ["system:apiserver", "system:kube-scheduler", "system:kube-controller-manager"]},
        {"level": "None", "nonResourceURLs": ["/readyz*", "/livez*", "/healthz*", "/openapi/*"]},
        {"level": "Metadata"},
    ],
}


def write_config(where: Layout) -> None:
    """Write the audit policy."""
    (where.config / "audit.json").write_text(json.dumps(AUDIT_POLICY))


def commands(where: Layout, binaries: Binaries) -> dict[str, list[str]]:
    """Return the argument list of each control-plane program, in the order in which to start them."""
    pki = where.pki
    return {
        "etcd": [
            f"{binaries.etcd}/etcd",
            "--name=bed",
            f"--data-dir={where.data}/etcd",
            f"--listen-client-urls={ETCD_URL}",
            f"--advertise-client-urls={ETCD_URL}",
            f"--listen-peer-urls={ETCD_PEER_URL}",
            f"--initial-advertise-peer-urls={ETCD_PEER_URL}",
            f"--initial-cluster=bed={ETCD_PEER_URL}",
            "--unsafe-no-fsync",
        ],
        "kube-apiserver": [
            f"{binaries.kubernetes}/kube-apiserver",
            f"--etcd-servers={ETCD_URL}",
            # On 443 of every address: the service address of "kubernetes" is one of them, so no proxy is needed.
            "--bind-address=0.0.0.0",
            "--secure-port=443",
            f"--advertise-address={BED_IP}",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/sa.pub",
            f"--service-account-signing-key-file={pki}/sa.key",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--kubelet-certificate-authority={pki}/ca.crt",
            f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
            f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",
            f"--audit-policy-file={where.config}/audit.json",
            f"--audit-log-path={where.logs}/{AUDIT_LOG}",
            "--audit-log-maxsize=50",
            "--audit-log-maxbackup=1",
        ],
        "kube-controller-manager": [
            f"{binaries.kubernetes}/kube-controller-manager",
            *_identity(where, "controller-manager"),
            f"--service-account-private-key-file={pki}/sa.key",
            f"--root-ca-file={pki}/ca.crt",
            f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key",
            "--use-service-account-credentials",
            # At the default of 20 requests a second, its controllers take four seconds to start.
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        ],
        "kube-scheduler": [f"{binaries.kubernetes}/kube-scheduler", *_identity(where, "scheduler")],
    }


def _identity(where: Layout, name: str) -> list[str]:
    # Without the kubeconfigs for delegated requests, neither program gives up when it starts before the API server.
    return [f"--kubeconfig={where.pki}/{name}.kubeconfig", "--leader-elect=false", "--bind-address=127.0.0.1"]
