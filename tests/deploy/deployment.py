"""One deployment on the cluster: installed under names of its own, triggered by hand, and taken away."""

import contextlib
import copy
import json
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from tests.bed.layout import layout
from tests.deploy.objects import Object
from tests.e2e.kube import Kube
from tests.e2e.waiting import wait_until

ACCOUNT = 65532
JOB_SECONDS = 110.0
CLOCK_SECONDS = 90.0
SIMULATOR = "docker.io/kprof/vllm-simulator:dev"
FAST = ("--simulate", f"--simulator-image={SIMULATOR}", "--simulate-speed=60")
POINTS = {"qwen3-0.6b-enable-prefix-caching", "qwen3-0.6b-no-enable-prefix-caching", "qwen3-32b-len32000"}
# What every account may do: ask about itself.
SELF = {
    ("authorization.k8s.io", "selfsubjectaccessreviews", "create"),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "create"),
    ("authentication.k8s.io", "selfsubjectreviews", "create"),
}
TRIAL = """\
version: 1
name: trial
defaults:
  image: vllm/vllm-openai:v0.11.0
  accelerator: {vendor: nvidia, product: NVIDIA-H100-80GB-HBM3}
  arguments: {gpu-memory-utilization: 0.9, max-model-len: 16000, block-size: 128}
groups:
  - name: qwen3-0.6b
    label: Qwen3-0.6B
    model: Qwen/Qwen3-0.6B
    arguments: {enable-prefix-caching: [true, false]}
  - name: qwen3-32b-len32000
    label: Qwen3-32B
    model: Qwen/Qwen3-32B
    arguments: {max-model-len: 32000}
    expect: kv.context_too_long
"""


@dataclass(frozen=True)
class Job:
    """A Job that has ended: whether it succeeded, its pods' exit codes in order, and the log of the last one."""

    succeeded: bool
    exit_codes: list[int]
    log: str


@dataclass(frozen=True)
class Deployment:
    """kprof in a cluster: its namespace, that of its points, and how to call the cluster as its administrator."""

    kube: Kube
    namespace: str
    points: str
    name: str = "kprof"

    def call(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl in kprof's namespace."""
        return self.kube.call("--namespace", self.namespace, *arguments, stdin=stdin)

    def start(self, job: str, *, arguments: list[str] | None = None) -> None:
        """Make a Job of the CronJob, with other arguments for kprof where they are given."""
        made = self.call("create", "job", job, f"--from=cronjob/{self.name}", "--dry-run=client", "-o", "json")
        if arguments is not None:
            patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": arguments}]
            made = self.call(
                "patch", "--local", "-f", "-", "--type=json", "-p", json.dumps(patch), "-o", "json", stdin=made
            )
        self.call("create", "-f", "-", stdin=made)

    def started_by_the_clock(self) -> str:
        """Let the CronJob start a Job at the next full minute, no other after it, and return its name."""
        cron = json.loads(self.call("get", "cronjob", self.name, "-o", "json"))
        before = cron["spec"]["schedule"]
        self._patch_cron(schedule="* * * * *")
        try:
            return wait_until("the clock starts a Job", partial(self._owned, cron), seconds=CLOCK_SECONDS, every=0.2)
        finally:
            self._patch_cron(schedule=before)

    def _patch_cron(self, **spec: str) -> None:
        self.call("patch", "cronjob", self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def _owned(self, cron: Object) -> str | None:
        # Only the controller notes the minute that a Job is for; one made by hand has no such annotation.
        for job in self.kube.items("jobs", "--namespace", self.namespace):
            owners = [owner["uid"] for owner in job["metadata"].get("ownerReferences", [])]
            annotations = job["metadata"].get("annotations", {})
            if cron["metadata"]["uid"] in owners and "batch.kubernetes.io/cronjob-scheduled-timestamp" in annotations:
                return str(job["metadata"]["name"])
        return None

    def pods(self, job: str) -> list[Object]:
        """Return the Job's pods, oldest first."""
        found = self.kube.items("pods", "--namespace", self.namespace, "--selector", f"job-name={job}")
        return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def wait(self, job: str) -> Job:
        """Wait until the Job has ended."""

        def ended() -> str | None:
            status = json.loads(self.call("get", "job", job, "-o", "json"))["status"]
            done = [item["type"] for item in status.get("conditions", []) if item["status"] == "True"]
            return next((kind for kind in done if kind in {"Complete", "Failed"}), None)

        try:
            kind = wait_until(f"the Job {job} ends", ended, seconds=JOB_SECONDS, every=0.5)
        except AssertionError as error:
            seen = self.call("describe", "jobs,pods") + self.kube.call("get", "pods", "-n", self.points, "-o", "wide")
            raise AssertionError(f"{error}\n{seen[-6000:]}") from error
        pods = self.pods(job)
        codes = [pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] for pod in pods]
        log = self.call("logs", pods[-1]["metadata"]["name"]) if pods else ""
        return Job(kind == "Complete", codes, log)

    def rights(self, namespace: str) -> set[tuple[str, str, str]]:
        """Return what kprof's account may do in a namespace, as the API server says."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        account = f"--as=system:serviceaccount:{self.namespace}:{self.name}"
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{self.namespace}", "system:authenticated")
        asked = [account, *(f"--as-group={group}" for group in groups)]
        # Validation by kubectl would read more than this account may.
        words = [*asked, "create", "--validate=false", "-f", "-", "-o", "json"]
        said = json.loads(self.kube.call(*words, stdin=json.dumps(review)))
        assert not said["status"].get("incomplete")
        return {
            (group, resource, verb)
            for rule in said["status"]["resourceRules"]
            for group in rule.get("apiGroups", [])
            for resource in rule.get("resources", [])
            for verb in rule["verbs"]
        }

    def left(self) -> list[str]:
        """Return what a sweep has left where the points run."""
        leases = self.kube.items("leases", "--namespace", self.points)
        return [*self.kube.left(self.points), *(f"Lease/{item['metadata']['name']}" for item in leases)]


@contextlib.contextmanager
def namespaces(kube: Kube) -> Iterator[tuple[str, str]]:
    """Give two fresh names of namespaces, and take away what bears them at the end."""
    own = f"kprof-test-{secrets.token_hex(4)}"
    names = (own, f"{own}-points")
    try:
        yield names
    finally:
        for name in names:
            kube.call("delete", "namespace", name, "--ignore-not-found", "--wait=false")
            # The next test counts GPUs, so the pods are gone at once.
            kube.call("delete", "pods", "--namespace", name, "--all", "--grace-period=0", "--force")
        for kind in ("clusterroles", "clusterrolebindings", "persistentvolumes"):
            found = [item["metadata"]["name"] for item in kube.items(kind)]
            for name in [name for name in found if own in name]:
                kube.call("delete", kind, name, "--wait=false")


def volume(kube: Kube, namespace: str, folder: Path) -> None:
    """Give the bed, which has no storage class, a volume for the results; other clusters bring their own."""
    if kube.kubeconfig != layout().kubeconfig:
        return
    folder.mkdir()
    # A kubelet sets no owner on a hostPath, as it would on a real volume by fsGroup.
    subprocess.run(["chown", f"{ACCOUNT}:{ACCOUNT}", folder], check=True)
    claim = {"kind": "PersistentVolumeClaim", "namespace": namespace, "name": "kprof-results"}
    made = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-results"},
        "spec": {
            "capacity": {"storage": "5Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(folder), "type": "Directory"},
            "claimRef": claim,
        },
    }
    kube.call("apply", "-f", "-", stdin=yaml.safe_dump(made))


def renamed(objects: list[Object], own: str, points: str) -> list[Object]:
    """Return the objects of the manifests in other namespaces, cluster-wide names made apart."""
    names = {"kprof": own, "kprof-points": points}
    made = []
    for original in objects:
        item = copy.deepcopy(original)
        metadata = item["metadata"]
        if item["kind"] == "Namespace":
            metadata["name"] = names[metadata["name"]]
        elif "namespace" in metadata:
            metadata["namespace"] = names[metadata["namespace"]]
        else:
            metadata["name"] = f"{own}-{metadata['name']}"
        for subject in item.get("subjects", []):
            subject["namespace"] = names[subject["namespace"]]
        if item["kind"] == "ClusterRoleBinding":
            item["roleRef"]["name"] = f"{own}-{item['roleRef']['name']}"
        text = yaml.safe_dump(item).replace("--namespace=kprof-points", f"--namespace={points}")
        made.append(
            yaml.safe_load(
                text.replace("kubernetes.io/metadata.name: kprof-points", f"kubernetes.io/metadata.name: {points}")
            )
        )
    return made
