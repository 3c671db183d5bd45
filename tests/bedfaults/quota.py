"""A quota on GPUs."""

from tests.e2e.kube import GPU, Kube
from tests.e2e.waiting import wait_until


def limit_gpus(kube: Kube, namespace: str, gpus: int) -> None:
    """Give the namespace so few GPUs, and wait until the API server counts them."""
    kube.call("create", "quota", "gpus", "-n", namespace, f"--hard=requests.{GPU}={gpus}")

    def counted() -> bool:
        return any(one.get("status", {}).get("hard") for one in kube.items("resourcequotas", "-n", namespace))

    wait_until("the quota is counted", counted, seconds=30)
