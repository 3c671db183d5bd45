"""The cluster as its administrator sees it: through kubectl, beside whatever kprof does there."""

import contextlib
import json
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.waiting import wait_until

GPU = "nvidia.com/gpu"
OURS = "app.kubernetes.io/managed-by=kprof"
IMAGE = "docker.io/kprof/vllm-simulator:dev"
CALL_SECONDS = 60.0

Object = dict[str, Any]


@dataclass(frozen=True)
class Kube:
    """A kubeconfig and the kubectl that uses it."""

    kubeconfig: Path
    program: str

    def command(self, *arguments: str) -> list[str]:
        """Return the argv of one kubectl call."""
        return [self.program, f"--kubeconfig={self.kubeconfig}", *arguments]

    def call(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return its output; a failure is the test's, with kubectl's own words."""
        done = subprocess.run(
            self.command(*arguments), input=stdin, capture_output=True, text=True, timeout=CALL_SECONDS, check=False
        )
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def items(self, *arguments: str) -> list[Object]:
        """Return the items of one `kubectl get`."""
        found: list[Object] = json.loads(self.call("get", *arguments, "-o", "json"))["items"]
        return found

    def left(self, namespace: str | None = None) -> list[str]:
        """Return the pods, ConfigMaps and Leases of kprof in one namespace, or in all."""
        where = ["--all-namespaces"] if namespace is None else ["--namespace", namespace]
        found = self.items("pods,configmaps,leases.coordination.k8s.io", *where, "--selector", OURS)
        return [f"{item['kind']}/{item['metadata']['namespace']}/{item['metadata']['name']}" for item in found]

    def gpus(self) -> int:
        """Return the allocatable GPUs of all nodes."""
        return sum(int(node["status"]["allocatable"].get(GPU, "0")) for node in self.items("nodes"))

    @contextlib.contextmanager
    def namespace(self) -> Iterator[str]:
        """Create a namespace that can run pods; take its pods and then itself away at the end."""
        name = f"kprof-test-{secrets.token_hex(4)}"
        self.call("create", "namespace", name)
        try:
            wait_until(
                f"{name} has its service account",
                lambda: self.items("serviceaccounts", "--namespace", name),
                seconds=30,
            )
            yield name
        finally:
            # The next test counts GPUs, so the pods are gone at once; the rest may take its time.
            self.call("delete", "pods", "--namespace", name, "--all", "--grace-period=0", "--force")
            self.call("delete", "namespace", name, "--wait=false")

    def config(self) -> Object:
        """Return the kubeconfig's current context, with everything in one document."""
        found: Object = json.loads(self.call("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
        return found
