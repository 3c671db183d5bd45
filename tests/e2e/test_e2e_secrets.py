"""A canary in place of the Hugging Face token: it may be in the pod, and nowhere in what kprof keeps or prints."""

import json
import secrets
from pathlib import Path

import yaml

from tests.e2e import stored
from tests.e2e.command import Kprof, Outcome
from tests.e2e.conftest import ClusterSweep
from tests.e2e.kube import IMAGE, Kube, Object

SPEAKING = ("canary-ready", "canary-failing", "canary-silent-end")


def _matrix(folder: Path) -> str:
    replayed = {
        "volumes": [{"name": "recorded", "configMap": {"name": "recorded"}}],
        "volumeMounts": [{"name": "recorded", "mountPath": "/recorded"}],
        "imagePullPolicy": "Never",
    }

    def group(name: str, **env: str) -> Object:
        return {"name": name, "model": "Qwen/Qwen3-0.6B", "env": env}

    document = {
        "version": 1,
        "name": "canary",
        "defaults": {
            "image": IMAGE,
            "huggingFaceToken": {"secretName": "canary-token", "key": "HF_TOKEN"},
            "env": {"KPROF_SIMULATE_SPEED": "500"},
            "pod": replayed,
        },
        "groups": [
            group("canary-plain"),
            *(group(name, KPROF_SIMULATE_REPLAY=f"/recorded/{name}") for name in SPEAKING),
        ],
    }
    path = folder / "canary.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


def _logs(recorded: str, canary: str) -> dict[str, str]:
    """Return logs that say the canary in the ways programs do, one of them in its very last line."""
    spoken = [
        f"(APIServer pid=1) INFO 11-21 07:00:00 [utils.py:233] non-default args: {{'api_key': ['{canary}']}}",
        f"HF_TOKEN={canary}",
        f"DEBUG 11-21 07:00:00 [hub.py:1] GET https://hub/api?token={canary} headers Authorization: Bearer {canary}",
        f"a bare {canary} in a sentence",
    ]
    own, _, rest = recorded.partition("\n")
    assert own.startswith("kprof simulator")
    lines = rest.splitlines()
    died = [*lines[:5], *spoken, "Traceback (most recent call last):", f"OSError: the token {canary} opened no file"]
    gated = (
        f"huggingface_hub.errors.GatedRepoError: 401 Client Error. Access to model org/m is restricted, token {canary}"
    )
    return {
        "canary-ready": "\n".join([*lines[:5], *spoken, *lines[5:]]) + "\n",
        "canary-failing": "\n".join([*lines[:5], *spoken, gated]) + "\n",
        "canary-silent-end": "\n".join([*died[:-2], f"last words {canary}"]) + "\n",
    }


def test_the_token_is_nowhere_and_a_simulator_is_never_a_measurement(
    kube: Kube, namespace: str, cluster_kprof: Kprof, cluster_sweep: ClusterSweep
) -> None:
    """Store, logs, tables, JSON and stderr without the canary; SIMULATED although --simulate was not given."""
    canary = f"hf_{secrets.token_hex(16)}"
    recorded = cluster_sweep.kprof.run("logs", "qwen3-0.6b").stdout
    kube.call("create", "secret", "generic", "canary-token", f"--from-literal=HF_TOKEN={canary}", "-n", namespace)
    data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "recorded"}, "data": _logs(recorded, canary)}
    kube.call("create", "-n", namespace, "-f", "-", stdin=json.dumps(data))

    swept = cluster_kprof.run("sweep", _matrix(cluster_kprof.folder), "-n", namespace, "--format", "json")
    assert swept.code == 1, swept.stderr
    summary = swept.json()
    assert {row["point"] for row in summary["rows"]} == {"canary-plain", "canary-ready"}
    assert {row["point"] for row in summary["failed"]} == {"canary-failing", "canary-silent-end"}

    assert summary["simulated"] is True
    assert {row["source"] for row in (*summary["rows"], *summary["failed"])} == {"SIMULATED"}
    printed = _everything_printed(cluster_kprof)
    assert "SIMULATED" in printed["summary table"].stdout
    assert "SIMULATED" in printed["show canary-plain"].stdout

    # The logs did say it, so that its absence proves something.
    kept = stored.logs(cluster_kprof.store)
    assert kept.count(b"[redacted]") >= 3 * len(SPEAKING)
    speaks = [name for name, outcome in printed.items() if canary in outcome.stdout + outcome.stderr]
    assert speaks == [], f"the canary is printed by: {speaks}"
    assert canary not in swept.stdout + swept.stderr
    documents = [
        result.point for result in stored.results(cluster_kprof.store) if canary in json.dumps(result.document)
    ]
    assert documents == [], f"the canary is in the stored results of: {documents}"
    assert canary.encode() not in kept
    assert canary.encode() not in stored.raw_bytes(cluster_kprof.store)
    assert kube.left(namespace) == []


def _everything_printed(kprof: Kprof) -> dict[str, Outcome]:
    printed = {
        f"summary {name}": kprof.run("summary", "--format", name) for name in ("table", "csv", "markdown", "json")
    }
    for point in ("canary-plain", *SPEAKING):
        printed[f"show {point}"] = kprof.run("show", point)
        printed[f"show {point} as JSON"] = kprof.run("show", point, "--format", "json")
        printed[f"logs {point}"] = kprof.run("logs", point)
    assert all(outcome.code == 0 for outcome in printed.values())
    return printed


def test_an_api_key_cannot_be_an_argument(kprof: Kprof) -> None:
    """A key would stand in the pod's arguments for everybody to read."""
    document = {
        "version": 1,
        "name": "key",
        "groups": [{"name": "a", "model": "m/m", "image": "i:1", "arguments": {"api-key": "hf_0123456789abcdef"}}],
    }
    path = kprof.folder / "key.yaml"
    path.write_text(yaml.safe_dump(document))
    for command in ("sweep", "render"):
        outcome = kprof.run(command, str(path))
        assert outcome.code == 2
        assert "api-key" in outcome.error
        assert "hf_0123456789abcdef" not in outcome.stderr + outcome.stdout
