"""The H100 sweep from nothing to its table, on this machine and on the cluster."""

import csv
import io
import json
from typing import Any

from tests.e2e import local_pods, stored
from tests.e2e.command import H100, SPEED, Kprof, Outcome
from tests.e2e.conftest import ClusterSweep, Sweep
from tests.e2e.kube import Kube
from tests.e2e.sampler import PodSampler

READY = 8
FAILED = {"deepseek-r1": "oom.load", "llama-3.3-70b-fp8-tp1": "kv.no_room", "qwen3-32b-len32000": "kv.context_too_long"}
FEW_GPUS = 3


def figures(outcome: Outcome) -> dict[str, Any]:
    """Return a summary without what names the run itself."""
    summary: dict[str, Any] = outcome.json()
    return {name: value for name, value in summary.items() if name != "run"}


def check_summary(outcome: Outcome) -> None:
    """Check that every point of the H100 matrix ended as expected, and that every row says SIMULATED."""
    assert outcome.code == 0, outcome.stderr
    summary = figures(outcome)
    assert (summary["simulated"], summary["as_expected"], summary["missing"]) == (True, True, [])
    assert len(summary["rows"]) == READY
    assert {row["point"]: row["failure"] for row in summary["failed"]} == FAILED
    assert all(row["remedy"] and row["cause"] for row in summary["failed"])
    assert {row["source"] for row in (*summary["rows"], *summary["failed"])} == {"SIMULATED"}
    sizes = ("weights_gib", "activation_gib", "non_torch_gib", "kv_cache_gib", "cuda_graph_gib")
    assert all(row[size] is not None for row in summary["rows"] for size in sizes)


def test_the_sweep_on_this_machine(local_sweep: Sweep) -> None:
    """`--on local` ends with 0, eight rows and three failures, and leaves neither pods nor processes."""
    check_summary(local_sweep.outcome)
    assert local_pods.pods(local_sweep.kprof.state) == []
    assert local_pods.lasting_processes(local_sweep.kprof.state) == []


def test_the_sweep_on_the_cluster_gives_the_same_figures(cluster_sweep: ClusterSweep, local_sweep: Sweep) -> None:
    """The same sweep as real pods: every figure, cause, remedy and note equals the local one."""
    check_summary(cluster_sweep.outcome)
    assert figures(cluster_sweep.outcome) == figures(local_sweep.outcome)


def test_the_sweep_leaves_nothing_in_the_cluster(cluster_sweep: ClusterSweep) -> None:
    """At the moment the command returns, no pod and no ConfigMap of kprof is there, in any namespace."""
    assert cluster_sweep.left == []


def test_every_point_was_one_pod(cluster_sweep: ClusterSweep) -> None:
    """An undisturbed sweep makes one pod for each point, and the store knows its uid."""
    attempts = stored.attempts(cluster_sweep.kprof.store)
    assert len(attempts) == READY + len(FAILED)
    assert all(attempt.ended and attempt.attempt == 0 for attempt in attempts)
    assert {item.point_hash: {item.uid} for item in attempts} == cluster_sweep.sampler.uids


def test_no_gpu_was_ever_over_committed(cluster_sweep: ClusterSweep, kube: Kube) -> None:
    """Live pods with a node never request more GPUs than there are, nor do kprof's pods, placed or not."""
    total, samples = kube.gpus(), cluster_sweep.sampler.samples
    assert max(sample.placed_gpus for sample in samples) <= total
    assert max(sample.own_gpus for sample in samples) <= total
    assert max(sample.own_pods for sample in samples) >= 3, "the points did not run side by side"


def test_max_gpus_is_never_exceeded(kube: Kube, namespace: str, cluster_kprof: Kprof, local_sweep: Sweep) -> None:
    """With --max-gpus 3 at most three GPUs are requested at any time, and the figures are the same."""
    with PodSampler(kube, namespace) as sampler:
        outcome = cluster_kprof.run(
            "sweep", H100, *SPEED, "--max-gpus", str(FEW_GPUS), "--format", "json", "-n", namespace
        )
    assert figures(outcome) == figures(local_sweep.outcome)
    most = max(sample.own_gpus for sample in sampler.samples)
    assert most <= FEW_GPUS
    assert most >= 2, "the sampler saw no two GPUs at work"


def test_a_finished_sweep_runs_nothing_again(cluster_sweep: ClusterSweep) -> None:
    """The same command once more prints the same summary at once and touches no result."""
    kprof = cluster_sweep.kprof
    before = stored.results(kprof.store)
    again = kprof.run("sweep", H100, *SPEED, "--format", "json", "-n", cluster_sweep.namespace)
    assert again.code == 0
    assert figures(again) == figures(cluster_sweep.outcome)
    assert stored.results(kprof.store) == before
    assert len(stored.runs(kprof.store)) == 1


def test_summary_in_its_four_formats(cluster_sweep: ClusterSweep) -> None:
    """Table, Markdown, CSV and JSON carry every point and the word SIMULATED."""
    kprof = cluster_sweep.kprof
    printed = {name: kprof.run("summary", "--format", name) for name in ("table", "markdown", "csv", "json")}
    for name, outcome in printed.items():
        assert outcome.code == 0, outcome.stderr
        assert "SIMULATED" in outcome.stdout, name
        for row in cluster_sweep.outcome.json()["rows"]:
            assert row["model"] in outcome.stdout, f"{row['model']} is missing in {name}"
    assert printed["json"].json()["rows"] == cluster_sweep.outcome.json()["rows"]
    lines = list(csv.reader(io.StringIO(printed["csv"].stdout)))
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 1 + READY + len(FAILED)
    assert printed["markdown"].stdout.count("| Model") >= 1


def test_show_prints_each_result_with_its_evidence(cluster_sweep: ClusterSweep) -> None:
    """`kprof show` names facts and their lines, the live check, and for a failure its kind and remedy."""
    kprof = cluster_sweep.kprof
    page = kprof.run("show", "qwen3-32b-tp2")
    assert page.code == 0, page.stderr
    for text in ("SIMULATED", "weights_gib", "kv_cache_gib", "KV accounting: agrees", "agrees with the log"):
        assert text in page.stdout
    document = kprof.run("show", "qwen3-32b-tp2", "--format", "json").json()
    assert (document["outcome"], document["source"], document["failure"]) == ("ready", "SIMULATED", None)
    assert [rank["rank"] for rank in document["start_up"]["ranks"]] == ["TP0", "TP1"]
    assert document["live"]["agrees"] is True
    failed = kprof.run("show", "deepseek-r1")
    for text in ("FAILED oom.load", "evidence: line", "remedy:"):
        assert text in failed.stdout
    unknown = kprof.run("show", "nobody")
    assert unknown.code == 3
    assert "nobody" in unknown.error


def test_the_stored_log_proves_what_show_says(cluster_sweep: ClusterSweep) -> None:
    """`kprof logs` prints the log, and each line of evidence stands where `kprof show` says."""
    kprof = cluster_sweep.kprof
    for point in ("qwen3-0.6b", "llama-3.3-70b-fp8-tp1"):
        log = kprof.run("logs", point)
        assert log.code == 0
        assert log.stdout.startswith("kprof simulator")
        lines = log.stdout.split("\n")
        document = kprof.run("show", point, "--format", "json").json()
        proofs = [*document["start_up"]["evidence"].values(), *([document["failure"]] if document["failure"] else [])]
        assert proofs
        for proof in proofs:
            assert proof["line"].strip() in lines[proof["line_number"] - 1], json.dumps(proof)
