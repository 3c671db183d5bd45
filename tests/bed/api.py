"""A client for the API server that can do the few things that the bed needs."""

import json
import ssl
import urllib.request
from typing import Any

from tests.bed.layout import NODE, SERVER, Layout
from tests.bed.node import GPU, GPU_LABELS

TIMEOUT_S = 5.0
MERGE_PATCH = "application/merge-patch+json"


class Api:
    """Requests to the API server as the bed's administrator."""

    def __init__(self, where: Layout) -> None:
        """Read the administrator's certificate from the state folder."""
        self._tls = ssl.create_default_context(cafile=str(where.pki / "ca.crt"))
        self._tls.load_cert_chain(where.pki / "admin.crt", where.pki / "admin.key")

    def _call(self, path: str, patch: dict[str, Any] | None = None) -> bytes | None:
        body = None if patch is None else json.dumps(patch).encode()
        request = urllib.request.Request(SERVER + path, data=body, headers={"Content-Type": MERGE_PATCH})
        if patch is not None:
            request.method = "PATCH"
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self._tls) as answer:
                content: bytes = answer.read()
                return content
        except OSError:
            # Refused, cut off, not found or not ready: all mean "not yet" to a caller that waits.
            return None

    def ready(self) -> bool:
        """Say whether the API server calls itself ready."""
        return self._call("/readyz") == b"ok"

    def default_account(self) -> bool:
        """Say whether the default namespace has its service account."""
        return self._call("/api/v1/namespaces/default/serviceaccounts/default") is not None

    def node(self) -> dict[str, Any]:
        """Return the bed's node, or an empty object where there is none."""
        content = self._call(f"/api/v1/nodes/{NODE}")
        node: dict[str, Any] = json.loads(content) if content else {}
        return node

    def node_ready(self) -> bool:
        """Say whether the node is Ready."""
        conditions = self.node().get("status", {}).get("conditions", [])
        return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)

    def gpus(self) -> int:
        """Return how many GPUs the scheduler may hand out on the node."""
        return int(self.node().get("status", {}).get("allocatable", {}).get(GPU, 0))

    def advertise_gpus(self, count: int) -> bool:
        """Label the node and write its GPU capacity, which the kubelet then keeps; say whether both were taken."""
        labels = {"metadata": {"labels": {**GPU_LABELS, f"{GPU}.count": str(count)}}}
        amount = {GPU: str(count)}
        capacity = {"status": {"capacity": amount, "allocatable": amount}}
        path = f"/api/v1/nodes/{NODE}"
        return self._call(path, labels) is not None and self._call(f"{path}/status", capacity) is not None
