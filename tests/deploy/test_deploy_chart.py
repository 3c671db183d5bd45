"""The chart: strict values, and the same deployment as the manifests."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator.matrix.expand import load_matrix
from tests.deploy.objects import CHART, Object, attempt, call, kinds, only, template, workloads
from tests.deploy.rules import check, restricted

VALUES = [None, *sorted((CHART / "ci").glob("*.yaml"))]
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())


def name_of(path: Path | None) -> str:
    """Return a readable name of a values file."""
    return "default" if path is None else path.stem


def arguments(path: Path | None) -> list[str | Path]:
    """Return helm's arguments for a values file."""
    return [] if path is None else ["--values", path]


def inner(cronjob: Object) -> Object:
    """Return the pod that a CronJob makes."""
    spec: Object = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return spec


def test_the_values_satisfy_the_schema() -> None:
    """The schema is one, and takes the chart's own values."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(yaml.safe_load((CHART / "values.yaml").read_text()), SCHEMA)


def test_the_schema_is_closed_and_complete() -> None:
    """Every object with named fields refuses others, and names exactly the fields of values.yaml."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def walk(schema: dict[str, Any], value: Any, path: str) -> None:
        if "required" not in schema or not isinstance(value, dict):
            return
        assert schema["additionalProperties"] is False, path
        assert set(schema["properties"]) - {"global"} == set(value), path
        for name, part in value.items():
            walk(schema["properties"][name], part, f"{path}.{name}")

    walk(SCHEMA, values, "values")


def test_every_value_is_explained() -> None:
    """Each field of the schema stands in values.yaml under a comment of its own, or under that of its parent."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    bare = []
    for number, line in enumerate(lines):
        key = re.match(r"( *)([A-Za-z]+):", line)
        if key is None or len(key[1]) > 2:
            continue
        above = lines[number - 1].strip()
        if not above.startswith("#") and not (key[1] and key[2] in {"apiServer", "claim", "urlSecret", "nightly"}):
            bare.append(f"{number + 1}: {line}")
    assert bare == []


@pytest.mark.parametrize("path", VALUES, ids=name_of)
def test_helm_lint(helm: Path, path: Path | None) -> None:
    """`helm lint --strict` has nothing to say."""
    call(helm, "lint", "--strict", CHART, *arguments(path))


@pytest.mark.parametrize("path", VALUES, ids=name_of)
def test_every_rendering_keeps_every_rule(helm: Path, path: Path | None) -> None:
    """Schemas, Pod Security `restricted` (the pod of `helm test` too), fixed images, no secrets."""
    objects = template(helm, *arguments(path))
    check(objects)
    assert [workload.name.split("/")[0] for workload in workloads(objects)] == ["CronJob", "Pod"]


def test_the_chart_renders_to_the_manifests(chart: list[Object], base: list[Object]) -> None:
    """But for labels, the namespace of the release, and names that end in a hash, both are the same."""

    def essence(item: Object) -> str:
        text = json.dumps(item["spec"] if "spec" in item else item.get("rules") or item.get("subjects"), sort_keys=True)
        return re.sub(r"kprof-matrices-\w+", "kprof-matrices", text)

    def bare(objects: list[Object]) -> dict[tuple[str, str, str], str]:
        found = {}
        for original in objects:
            item = copy.deepcopy(original)
            metadata = item["metadata"]
            if item["kind"] == "CronJob":
                item["spec"].setdefault("suspend", False)
                item["spec"]["jobTemplate"].pop("metadata", None)
                item["spec"]["jobTemplate"]["spec"]["template"]["metadata"].pop("labels")
            if item["kind"] == "NetworkPolicy":
                item["spec"]["podSelector"]["matchLabels"].pop("app.kubernetes.io/instance", None)
                item["spec"]["ingress"] = item["spec"].get("ingress") or []
            name = re.sub(r"kprof-matrices-\w+", "kprof-matrices", metadata["name"])
            found[item["kind"], metadata.get("namespace", ""), name] = essence(item)
        return found

    expected = {key: value for key, value in bare(base).items() if key != ("Namespace", "", "kprof")}
    assert bare(chart) == expected


def test_the_matrix_of_the_values_is_that_of_the_manifests(chart: list[Object], base: list[Object]) -> None:
    """A first installation runs the same points both ways."""
    matrices = [yaml.safe_load(only(objects, "ConfigMap")["data"]["nightly.yaml"]) for objects in (chart, base)]
    assert matrices[0] == matrices[1]


def test_values_reach_their_places(helm: Path, tmp_path: Path) -> None:
    """A digest wins over a tag, a mapping gets secret and cache by name, and placement is the pod's."""
    objects = template(helm, "--values", CHART / "ci" / "full-values.yaml", "--skip-tests")
    pod = inner(only(objects, "CronJob"))
    assert pod["containers"][0]["image"].startswith("registry.example.com:5000/tools/kprof@sha256:")
    assert pod["containers"][0]["args"] == [
        "sweep", "/matrices/weekly.yaml", "--namespace=profiling", "--format=human", "--repeat", "--max-gpus=4",
        "--max-parallel=2", "--only=qwen3-*", "--only=llama-*",
    ]  # fmt: skip
    assert pod["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert (pod["priorityClassName"], pod["imagePullSecrets"]) == ("batch-low", [{"name": "registry-login"}])
    assert {item["metadata"]["labels"]["team"] for item in objects} == {"inference"}
    assert only(objects, "PersistentVolumeClaim", "nightly-kprof-model-cache")["metadata"]["namespace"] == "profiling"
    assert only(objects, "ClusterRole")["rules"] == [
        {"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["list"]}
    ]
    matrix = tmp_path / "weekly.yaml"
    matrix.write_text(only(objects, "ConfigMap")["data"]["weekly.yaml"])
    (point,) = load_matrix(matrix).points
    assert (point.token_secret, point.cache_claim) == (("hf-token", "HF_TOKEN"), "nightly-kprof-model-cache")
    assert point.argument("kv-cache-memory-bytes") == 268435456


NUMBER_LIKE = CHART / "ci" / "number-like-values.yaml"


def scalars(item: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each scalar with its path."""
    if isinstance(item, dict | list):
        for key, value in item.items() if isinstance(item, dict) else enumerate(item):
            yield from scalars(value, f"{path}/{key}")
    else:
        yield path, item


def types(objects: list[Object]) -> dict[str, str]:
    """Return the type of each scalar by kind of object and path."""
    return {
        f"{number} {item['kind']}{path}": type(value).__name__
        for number, item in enumerate(objects)
        for path, value in scalars(item)
    }


@pytest.mark.parametrize("release", ["123", "1e3"])
def test_words_that_look_like_numbers_stay_words(helm: Path, tmp_path: Path, release: str) -> None:
    """What is a text in the values, and the names that helm is given, is one for Kubernetes as well."""
    likes = re.compile(r"(?<=\")(on|off|yes|[0-9.]+|1e3|0x10)(?=\")")
    words = tmp_path / "words.yaml"
    words.write_text(likes.sub(lambda found: f"w{found[1]}", NUMBER_LIKE.read_text()))
    strange = template(helm, "--values", NUMBER_LIKE, release=release, namespace="0123")
    plain = template(helm, "--values", words, release="kprof", namespace="kprof")
    assert types(strange) == types(plain)
    check(strange)
    instances = {item["metadata"]["labels"]["app.kubernetes.io/instance"] for item in strange}
    assert instances == {release}


@pytest.mark.parametrize("like", ["on", "123", "1e3"])
def test_a_secret_for_the_store_that_looks_like_a_number(helm: Path, like: str) -> None:
    """Its name and its key are texts."""
    text = ("--set-string", f"store.urlSecret.name={like},store.urlSecret.key={like}")
    pod = inner(only(template(helm, *text), "CronJob"))
    store = next(entry for entry in pod["containers"][0]["env"] if entry["name"] == "KPROF_STORE")
    assert store["valueFrom"]["secretKeyRef"] == {"name": like, "key": like}


def test_a_matrix_given_as_text_stands_as_it_is(helm: Path, tmp_path: Path) -> None:
    """Also one whose first line is indented, which tells YAML nothing of the other lines."""
    own = yaml.safe_load((CHART / "values.yaml").read_text())["matrices"]["inline"]["nightly"]
    matrix = f"   # The first line.\n\n{own}"
    values = tmp_path / "values.yaml"
    values.write_text(json.dumps({"matrices": {"inline": {"nightly": matrix}}}))
    objects = template(helm, "--values", values)
    assert only(objects, "ConfigMap")["data"]["nightly.yaml"] == matrix


@pytest.mark.parametrize("number", [9007199254740993, -9007199254740993, 9007199254740992])
def test_a_number_that_helm_would_change_is_refused(helm: Path, tmp_path: Path, number: int) -> None:
    """Whole numbers beyond 2^53 in a mapping are others by the time a template sees them; a text keeps them."""
    group = {"name": "a", "model": "Qwen/Qwen3-0.6B", "arguments": {"seed": [1, number]}}
    matrix = {"version": 1, "name": "nightly", "groups": [group]}
    values = tmp_path / "values.yaml"
    values.write_text(json.dumps({"matrices": {"inline": {"nightly": matrix}}}))
    done = attempt(helm, "template", "kprof", CHART, "--values", values)
    assert done.returncode != 0
    assert "matrices.inline.nightly.groups[0].arguments.seed[1]" in done.stderr
    assert "give this matrix as a text" in done.stderr
    group["arguments"] = {"seed": [1, 2**53 - 1]}
    values.write_text(json.dumps({"matrices": {"inline": {"nightly": matrix}}}))
    kept = yaml.safe_load(only(template(helm, "--values", values), "ConfigMap")["data"]["nightly.yaml"])
    assert kept["groups"][0]["arguments"]["seed"] == [1, 2**53 - 1]


def test_what_is_there_already_is_not_made_again(helm: Path) -> None:
    """With everything named, the CronJob and its policy are all; the store's URL comes from a Secret's key."""
    objects = template(helm, "--values", CHART / "ci" / "existing-values.yaml", "--skip-tests")
    assert kinds(objects) == ["CronJob", "NetworkPolicy"]
    pod = inner(only(objects, "CronJob"))
    store = next(entry for entry in pod["containers"][0]["env"] if entry["name"] == "KPROF_STORE")
    assert store["valueFrom"] == {"secretKeyRef": {"name": "results-database", "key": "url"}}
    assert [volume["name"] for volume in pod["volumes"]] == ["matrices", "tmp"]
    assert pod["serviceAccountName"] == "profiler"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("image.tagg=1", "tagg"),
        ("image.tag=latest", "image/tag"),
        ("image.digest=sha256:abc", "image/digest"),
        ("cronJob.schedule=now", "cronJob/schedule"),
        ("cronJob.concurrencyPolicy=Allow", "concurrencyPolicy"),
        ("sweep.maxGpus=0", "sweep/maxGpus"),
        ("sweep.matrix=../etc/passwd", "sweep/matrix"),
        ("store.url=postgresql://user:word@host/db", "url"),
        ("huggingFaceToken.value=something", "value"),
        ("points.podSecurity=none", "points/podSecurity"),
        ("pod.securityContext.runAsUser=0", "securityContext"),
        ("sweep.matrix=weekly", "no matrix of that name"),
        ("points.namespace=kprof", "points.createNamespace must be false"),
        ("sweep.simulate.enabled=true", "sweep.simulate.image is needed"),
        ("serviceAccount.create=false", "serviceAccount.name is needed"),
    ],
)
def test_wrong_values_are_refused(helm: Path, setting: str, said: str) -> None:
    """helm stops, and its message names the value."""
    done = attempt(helm, "template", "kprof", CHART, "--namespace", "kprof", "--set", setting)
    assert done.returncode != 0
    assert said in done.stderr


def test_names_of_a_long_release_fit(helm: Path) -> None:
    """A CronJob's name has 52 characters at most; names that hold another release's stay apart."""
    long = "a-release-with-quite-a-long-name-of-fifty-three-chars"
    objects = template(helm, "--skip-tests", release=long)
    assert len(only(objects, "CronJob")["metadata"]["name"]) <= 52
    assert {len(item["metadata"]["name"]) <= 63 for item in objects} == {True}


def test_the_notes_name_the_next_commands(helm: Path) -> None:
    """NOTES tell how to run the sweep now, and that the default image is a placeholder; they need no cluster."""
    said = call(
        helm, "install", "kprof", CHART, "--namespace", "kprof", "--dry-run=client", "--set", "sweep.maxGpus=null"
    )
    notes = said[said.index("NOTES:") :]
    for words in ("create job --from=cronjob/kprof", "helm test kprof", "placeholder", "points queue one at a time"):
        assert words in notes


def test_the_pod_of_helm_test_is_restricted_and_takes_no_token(helm: Path) -> None:
    """It checks the matrix without asking the cluster anything."""
    pod = only(template(helm, "--show-only", "templates/tests/dry-run.yaml"), "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["containers"][0]["args"][-1] == "--dry-run"
    assert [wrong for workload in workloads([pod]) for wrong in restricted(workload)] == []
    policy = only(template(helm, "--skip-tests"), "NetworkPolicy")
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
