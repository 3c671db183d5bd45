"""`kprof clean` after a kill, and `kprof doctor` before a sweep."""

import json
import signal
from typing import Any

import pytest

from tests.e2e import local_pods
from tests.e2e.command import H100, SPEED, Kprof
from tests.e2e.kube import Kube
from tests.e2e.waiting import wait_until

SLOW = ("--simulate", "--simulate-speed", "2")


def documents(stdout: str) -> list[dict[str, Any]]:
    """Return the JSON objects of a command's lines."""
    return [json.loads(line) for line in stdout.splitlines()]


def test_clean_removes_what_a_killed_kprof_left_and_nothing_that_is_driven(
    kube: Kube, namespace: str, cluster_kprof: Kprof
) -> None:
    """First a sweep that runs: it is left alone. Then the same one, killed: nothing of it stays."""
    running = cluster_kprof.start("sweep", H100, *SLOW, "-n", namespace)
    wait_until("a pod is there", lambda: bool(kube.items("pods", "-n", namespace)), seconds=30)
    (alive,) = documents(cluster_kprof.run("clean", "-n", namespace, "--format", "json").stdout)
    assert "left alone" in alive["outcome"]
    assert running.process.poll() is None
    running.signal(signal.SIGKILL)
    running.process.wait()
    there = kube.left(namespace)
    assert there
    (listed,) = documents(cluster_kprof.run("clean", "-n", namespace, "--dry-run", "--format", "json").stdout)
    assert listed["outcome"].startswith("would be removed")
    assert set(there) <= set(kube.left(namespace))
    cleaned = cluster_kprof.run("clean", "-n", namespace)
    assert cleaned.code == 0
    assert "removed" in cleaned.stdout
    assert kube.left(namespace) == []
    assert "nothing of kprof is there" in cluster_kprof.run("clean", "-n", namespace).stdout


def test_clean_on_this_machine(kprof: Kprof) -> None:
    """Processes and folders of a killed sweep go."""
    running = kprof.start("sweep", H100, "--on", "local", *SLOW)
    wait_until("a pod runs", lambda: bool(local_pods.processes(kprof.state)), seconds=30)
    running.signal(signal.SIGKILL)
    running.process.wait()
    assert kprof.run("clean", "--on", "local").code == 0
    assert local_pods.pods(kprof.state) == []
    assert local_pods.lasting_processes(kprof.state) == []


def test_doctor_names_the_missing_secret_and_the_command_that_makes_it(
    kube: Kube, namespace: str, cluster_kprof: Kprof
) -> None:
    """The H100 matrix needs a token; with it, nothing stops the sweep."""
    arguments = ("doctor", H100, "-n", namespace, "--format", "json")
    sick = cluster_kprof.run(*arguments)
    assert sick.code == 1
    (finding,) = [one for one in documents(sick.stdout) if one["level"] == "fail"]
    assert finding["text"] == "llm-d-hf-token is not there"
    assert f"kubectl -n {namespace} create secret generic llm-d-hf-token" in finding["remedy"]
    kube.call("create", "secret", "generic", "llm-d-hf-token", "-n", namespace, "--from-literal=HF_TOKEN=none")
    healthy = cluster_kprof.run(*arguments)
    assert healthy.code == 0
    assert "none" not in healthy.stdout
    # No node of a test cluster has vLLM's image, and nobody tries whether it can be pulled.
    assert {one["subject"] for one in documents(healthy.stdout) if one["level"] != "ok"} <= {"image"}


@pytest.mark.parametrize(
    ("hard", "words"),
    [("1", "the largest point takes"), ("8", "0 of 8 requests.nvidia.com/gpu used")],
    ids=["too small", "enough"],
)
def test_doctor_reads_the_quota(hard: str, words: str, kube: Kube, namespace: str, cluster_kprof: Kprof) -> None:
    """A quota below the largest point can never be met."""
    kube.call("create", "quota", "gpus", "-n", namespace, f"--hard=requests.nvidia.com/gpu={hard}")
    wait_until(
        "the quota is counted",
        lambda: any(one.get("status", {}).get("hard") for one in kube.items("resourcequotas", "-n", namespace)),
        seconds=30,
    )
    outcome = cluster_kprof.run("doctor", H100, *SPEED[:1], "-n", namespace, "--format", "json")
    assert outcome.code == (1 if hard == "1" else 0)
    (finding,) = [one for one in documents(outcome.stdout) if one["subject"] == "quota"]
    assert words in finding["text"]


def test_doctor_names_every_missing_right(kube: Kube, namespace: str, cluster_kprof: Kprof) -> None:
    """A service account without a role has none of them."""
    kube.call("create", "serviceaccount", "nobody", "-n", namespace)
    token = kube.call("create", "token", "nobody", "-n", namespace).strip()
    config = kube.config()
    config["users"][0]["user"] = {"token": token}
    path = cluster_kprof.folder / "nobody.kubeconfig"
    path.write_text(json.dumps(config))
    outcome = cluster_kprof.run("doctor", "-n", namespace, "--format", "json", kubeconfig=path)
    assert outcome.code == 1
    missing = [
        one["text"] for one in documents(outcome.stdout) if one["level"] == "fail" and one["subject"] == "access"
    ]
    for right in ("create pods", "get pods/log", "create pods/proxy", "create configmaps", "update leases"):
        assert any(right in text for text in missing)
    assert token not in outcome.stdout + outcome.stderr


def test_doctor_on_this_machine_misses_vllm(kprof: Kprof) -> None:
    """And says how to get it."""
    outcome = kprof.run("doctor", "--on", "local", "--format", "json")
    assert outcome.code == 1
    assert "pip install vllm" in documents(outcome.stdout)[0]["remedy"]
