"""The manifests: well formed, few rights, Pod Security, nothing secret, nothing that moves."""

from pathlib import Path

import pytest
import yaml

from orchestrator.cluster.kubernetes.preflight import HELPFUL_RIGHTS, NEEDED_RIGHTS
from orchestrator.cluster.manifest import Simulation, render_pod
from orchestrator.matrix.expand import load_matrix
from tests.deploy.objects import MANIFESTS, Object, Workload, kinds, only, read
from tests.deploy.rules import baseline, check

FILES = sorted(path for path in MANIFESTS.rglob("*.yaml") if path.name != "pod.yaml")
MATRICES = [path for path in FILES if path.parent.name == "matrices"]

Right = tuple[str, str, str]


def rights(role: Object) -> set[Right]:
    """Return a Role's rules as (API group, resource, verb)."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def needed() -> set[Right]:
    """Return what kprof asks the API server for, and what helps it in its own namespace."""
    asked = (*NEEDED_RIGHTS, *(right for right, _ in HELPFUL_RIGHTS))
    return {(right.group, right.name, right.verb) for right in asked}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(MANIFESTS)))
def test_every_file_is_yaml_without_repeated_keys(path: Path) -> None:
    """Each file parses, and no key stands twice in a mapping, where the last one would win silently."""

    def keys(node: yaml.Node | None) -> None:
        if isinstance(node, yaml.MappingNode):
            names = [key.value for key, _ in node.value]
            assert len(names) == len(set(names)), f"{path.name}:{node.start_mark.line + 1}: {names}"
            for _, value in node.value:
                keys(value)
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                keys(value)

    documents = list(yaml.compose_all(path.read_text()))
    assert documents
    for document in documents:
        keys(document)


@pytest.mark.parametrize("path", MATRICES, ids=lambda path: str(path.relative_to(MANIFESTS)))
def test_the_matrices_are_matrices(path: Path) -> None:
    """kprof reads each of them, and the pods of their points pass the level of their namespace."""
    matrix = load_matrix(path)
    assert matrix.name == path.stem
    for point in matrix.points:
        for simulation in (None, Simulation()):
            pod = render_pod(point, "0" * 8, 0, simulation)
            assert list(baseline(Workload(pod.name, {}, pod.body["spec"]))) == []


def test_the_base_keeps_every_rule(base: list[Object]) -> None:
    """Schemas, Pod Security `restricted`, fixed images, no secrets."""
    check(base)
    assert kinds(base) == [
        "ConfigMap", "CronJob", "Namespace", "Namespace", "NetworkPolicy", "PersistentVolumeClaim", "Role",
        "RoleBinding", "ServiceAccount",
    ]  # fmt: skip


def test_the_example_overlay_keeps_every_rule(example: list[Object], base: list[Object]) -> None:
    """With both components: a ClusterRole that lists nodes and pods, and a claim for model files, are added."""
    check(example)
    added = kinds(example)
    for kind in kinds(base):
        added.remove(kind)
    assert added == ["ClusterRole", "ClusterRoleBinding", "PersistentVolumeClaim"]
    assert rights(only(example, "ClusterRole")) == {("", "nodes", "list"), ("", "pods", "list")}


def test_the_role_is_what_kprof_needs_and_no_more(base: list[Object]) -> None:
    """The Role holds exactly the rights that kprof checks for before a sweep, and no wildcard."""
    assert rights(only(base, "Role")) == needed()


def test_kprof_has_no_rights_in_its_own_namespace(base: list[Object]) -> None:
    """Its account, results and matrices lie where it may do nothing; its Role is where the points run."""
    binding = only(base, "RoleBinding")
    assert binding["metadata"]["namespace"] == only(base, "Role")["metadata"]["namespace"] == "kprof-points"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "kprof", "namespace": "kprof"}]
    assert only(base, "ServiceAccount")["automountServiceAccountToken"] is False
    for kind in ("CronJob", "ConfigMap", "PersistentVolumeClaim", "ServiceAccount", "NetworkPolicy"):
        assert only(base, kind)["metadata"]["namespace"] == "kprof"


def test_the_namespaces_enforce_pod_security(base: list[Object]) -> None:
    """kprof's own is `restricted`; that of the points is `baseline`, for images that run as root."""
    enforced = {
        name: only(base, "Namespace", name)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for name in ("kprof", "kprof-points")
    }
    assert enforced == {"kprof": "restricted", "kprof-points": "baseline"}


def test_the_night_runs_once_and_ends(base: list[Object]) -> None:
    """No two sweeps at once, no repetition of a failed one, a limit on everything."""
    job = only(base, "CronJob")["spec"]
    made = job["jobTemplate"]["spec"]
    assert job["concurrencyPolicy"] == "Forbid"
    assert (made["backoffLimit"], made["template"]["spec"]["restartPolicy"]) == (0, "Never")
    assert made["podReplacementPolicy"] == "Failed"
    assert 0 < made["activeDeadlineSeconds"] < 24 * 3600
    assert all(job[name] > 0 for name in ("startingDeadlineSeconds", "failedJobsHistoryLimit"))
    assert made["ttlSecondsAfterFinished"] > 24 * 3600


def test_a_changed_matrix_is_another_configmap(base: list[Object]) -> None:
    """The ConfigMap's name ends in a hash, and the CronJob names it."""
    name = only(base, "ConfigMap")["metadata"]["name"]
    assert name.startswith("kprof-matrices-")
    volumes = only(base, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["volumes"]
    assert [volume["configMap"]["name"] for volume in volumes if "configMap" in volume] == [name]


def test_nobody_reaches_kprof(base: list[Object]) -> None:
    """No ingress; egress to the name service, the API server's ports and the pods of the points."""
    policy = only(base, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert not policy.get("ingress")
    ports = [sorted({port["port"] for port in rule["ports"]}) for rule in policy["egress"]]
    assert ports == [[53], [443, 6443], [8000]]
    template = only(base, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    assert policy["podSelector"]["matchLabels"].items() <= labels
    # What kprof puts on its pods, and the administrator's `kubectl get -l` finds, is not on kprof itself.
    assert ("app.kubernetes.io/managed-by", "kprof") not in labels


def test_pods_of_points_are_those_that_the_policy_lets_kprof_call(base: list[Object]) -> None:
    """The policy's selector matches manifests/pod.yaml."""
    pod = read((MANIFESTS / "pod.yaml").read_text())[0]
    selector = only(base, "NetworkPolicy")["spec"]["egress"][2]["to"][0]["podSelector"]["matchLabels"]
    assert selector.items() <= pod["metadata"]["labels"].items()
