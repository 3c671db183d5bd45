"""The pod of a point: the published profiling pod in all that matters, and nothing that could leak or mislead."""

import json
import re
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster.manifest import Simulation, escape, render_pod, unescape
from orchestrator.matrix.point import Point
from tests.fakes.matrix import point

RUN = "0123abcd"
TOKEN = {"secretName": "llm-d-hf-token", "key": "HF_TOKEN"}

# The pod that the published H100 figures were measured with, for Qwen3-32B on two devices.
PUBLISHED = yaml.safe_load("""
apiVersion: v1
kind: Pod
spec:
  restartPolicy: Never
  containers:
    - name: vllm
      image: vllm/vllm-openai:v0.11.0
      command: ["vllm", "serve"]
      args:
        - Qwen/Qwen3-32B
        - --tensor-parallel-size=2
        - --gpu-memory-utilization=0.9
        - --max-model-len=16000
        - --block-size=128
        - --enable-prefix-caching
        - --host=0.0.0.0
        - --port=8000
      resources:
        requests: {nvidia.com/gpu: "2"}
        limits: {nvidia.com/gpu: "2"}
      env:
        - name: HF_TOKEN
          valueFrom:
            secretKeyRef: {name: llm-d-hf-token, key: HF_TOKEN}
        - {name: VLLM_LOGGING_LEVEL, value: DEBUG}
        - {name: HF_HOME, value: /tmp/cache}
      volumeMounts:
        - {name: cache, mountPath: /tmp/cache}
  volumes:
    - {name: cache, emptyDir: {}}
""")


def _published_point() -> Point:
    return point(
        "Qwen/Qwen3-32B",
        arguments={
            "tp": 2,
            "gpu-memory-utilization": 0.9,
            "max-model-len": 16000,
            "block-size": 128,
            "enable-prefix-caching": True,
        },
        huggingFaceToken=TOKEN,
    )


def _body(of: Point, simulation: Simulation | None = None) -> dict[str, Any]:
    return dict(render_pod(of, RUN, 0, simulation).body)


def _container(body: dict[str, Any]) -> dict[str, Any]:
    (only,) = body["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def _env(container: dict[str, Any]) -> dict[str, Any]:
    names = [entry["name"] for entry in container["env"]]
    assert len(set(names)) == len(names)
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def test_the_pod_is_the_published_one_in_all_that_matters() -> None:
    """Image, command, arguments, devices, token by reference, log level, cache and restart policy."""
    body = _body(_published_point())
    found, wanted = _container(body), _container(PUBLISHED)
    for field in ("name", "image", "command", "resources"):
        assert found[field] == wanted[field]
    assert found["args"][0] == wanted["args"][0]
    assert sorted(found["args"]) == sorted(wanted["args"])
    assert _env(wanted).items() <= _env(found).items()
    assert wanted["volumeMounts"][0] in found["volumeMounts"]
    assert PUBLISHED["spec"]["volumes"][0] in body["spec"]["volumes"]
    assert (body["apiVersion"], body["kind"]) == ("v1", "Pod")
    assert body["spec"]["restartPolicy"] == "Never"


def test_profiling_is_not_skipped_by_accident() -> None:
    """A cached start-up plan would skip profiling, and service links would set vLLM's own variables."""
    body = _body(point())
    assert _env(_container(body))["VLLM_ENABLE_STARTUP_PLAN"] == "0"
    assert body["spec"]["enableServiceLinks"] is False


def test_the_server_is_found_on_its_port_and_never_killed_for_being_slow() -> None:
    """Readiness asks /health; a liveness probe would end a slow start, which is a measurement."""
    container = _container(_body(point()))
    assert [entry["containerPort"] for entry in container["ports"]] == [8000]
    assert container["readinessProbe"]["httpGet"]["path"] == "/health"
    assert "livenessProbe" not in container
    assert "startupProbe" not in container


@pytest.mark.parametrize("size", [1, 2, 4])
def test_devices_asked_for_are_those_of_the_point(size: int) -> None:
    """Requests equal limits, and the manifest tells the scheduler of kprof the same number."""
    manifest = render_pod(point(arguments={"tp": size}), RUN)
    resources = _container(dict(manifest.body))["resources"]
    assert resources["requests"] == resources["limits"] == {"nvidia.com/gpu": str(size)}
    assert (manifest.resource, manifest.devices) == ("nvidia.com/gpu", size)


def test_vllm_on_cpu_asks_for_no_device() -> None:
    """No accelerator, no extended resource."""
    manifest = render_pod(point(accelerator={"vendor": "cpu"}), RUN)
    assert (manifest.resource, manifest.devices) == (None, 0)
    assert "gpu" not in json.dumps(manifest.body.get("spec"))


# Secrets


def test_no_token_value_is_in_the_pod() -> None:
    """The token is named by Secret and key; the pod carries no service account token either."""
    body = _body(_published_point())
    assert _env(_container(body))["HF_TOKEN"] == {"secretKeyRef": {"name": "llm-d-hf-token", "key": "HF_TOKEN"}}
    assert "hf_" not in json.dumps(body)
    assert body["spec"]["automountServiceAccountToken"] is False


def test_a_reference_in_a_value_is_escaped() -> None:
    """Kubernetes would put the token into the arguments, where every log prints it."""
    of = point(arguments={"served-model-name": "$(HF_TOKEN)"}, env={"A": "x$(HF_TOKEN)y"}, huggingFaceToken=TOKEN)
    container = _container(_body(of))
    assert "--served-model-name=$$(HF_TOKEN)" in container["args"]
    assert _env(container)["A"] == "x$$(HF_TOKEN)y"


def _kubernetes_expands(text: str, variables: dict[str, str]) -> str:
    """Expand as the kubelet does: `$$` is a dollar, `$(NAME)` a variable, anything else stays (expansion.Expand)."""
    out, place = "", 0
    while place < len(text):
        if text[place] != "$" or place + 1 == len(text):
            out, place = out + text[place], place + 1
        elif text[place + 1] == "$":
            out, place = out + "$", place + 2
        elif text[place + 1] == "(" and (end := text.find(")", place + 2)) >= 0:
            name = text[place + 2 : end]
            out, place = out + variables.get(name, f"$({name})"), end + 1
        else:
            out, place = out + text[place : place + 2], place + 2
    return out


VALUES = st.text(alphabet="$()HF_x ", max_size=12) | st.lists(
    st.sampled_from(["$", "$$", "(", ")", "$(HF)", "$$(HF)", "x"]), max_size=6
).map("".join)


@given(VALUES)
def test_what_kubernetes_makes_of_an_escaped_value_is_the_value(value: str) -> None:
    """No spelling of dollars and brackets brings a variable's value into the arguments."""
    assert _kubernetes_expands(escape(value), {"HF": "secret", "": "secret", "x": "secret"}) == value


@given(VALUES)
def test_the_local_adapter_sees_the_value_as_written(value: str) -> None:
    """Where nothing is expanded, escaping is undone."""
    assert unescape(escape(value)) == value


# Volumes and overlays


@pytest.mark.parametrize(("arguments", "wanted"), [({}, False), ({"tp": 2}, True), ({"pp": 2}, True)])
def test_ranks_that_talk_get_shared_memory(arguments: dict[str, int], wanted: bool) -> None:
    """More than one rank needs /dev/shm beyond the 64 MiB of a container."""
    body = _body(point(arguments=arguments))
    mounts = [m for m in _container(body)["volumeMounts"] if m["mountPath"] == "/dev/shm"]
    assert bool(mounts) is wanted
    if wanted:
        (volume,) = [v for v in body["spec"]["volumes"] if v["name"] == mounts[0]["name"]]
        assert volume["emptyDir"]["medium"] == "Memory"


def test_shared_memory_has_the_size_that_the_matrix_says() -> None:
    """Even on one device."""
    volumes = _body(point(pod={"shmSize": "1Gi"}))["spec"]["volumes"]
    assert {"medium": "Memory", "sizeLimit": "1Gi"} in [v.get("emptyDir") for v in volumes]


def test_the_cache_is_a_claim_by_name_where_the_matrix_says_so() -> None:
    """And an emptyDir otherwise."""
    claimed = _body(point(cache={"claimName": "models"}))["spec"]["volumes"]
    assert {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}} in claimed
    assert {"name": "cache", "emptyDir": {}} in _body(point())["spec"]["volumes"]


def test_overlays_are_merged_over_the_pod() -> None:
    """Kubernetes' own fields reach the pod; what kprof needs is not lost."""
    of = point(
        arguments={"tp": 2},
        pod={
            "nodeSelector": {"gpu": "h100"},
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "runtimeClassName": "nvidia",
            "priorityClassName": "low",
            "volumes": [{"name": "data", "hostPath": {"path": "/data"}}],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            "resources": {"requests": {"memory": "8Gi"}, "limits": {"memory": "16Gi", "nvidia.com/gpu": "8"}},
            "labels": {"team": "a", "kprof.io/run": "stolen"},
            "annotations": {"note": "x"},
            "imagePullPolicy": "IfNotPresent",
            "imagePullSecrets": [{"name": "pull"}],
        },
    )
    body = _body(of)
    spec, container, metadata = body["spec"], _container(body), body["metadata"]
    assert spec["nodeSelector"] == {"gpu": "h100"}
    assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert (spec["runtimeClassName"], spec["priorityClassName"]) == ("nvidia", "low")
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert {v["name"] for v in spec["volumes"]} == {"cache", "shm", "data"}
    assert {m["name"] for m in container["volumeMounts"]} == {"cache", "shm", "data"}
    assert container["resources"] == {
        "requests": {"memory": "8Gi", "nvidia.com/gpu": "2"},
        "limits": {"memory": "16Gi", "nvidia.com/gpu": "2"},
    }
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert (metadata["labels"]["team"], metadata["labels"]["kprof.io/run"]) == ("a", RUN)
    assert metadata["annotations"]["note"] == "x"
    assert metadata["labels"]["kprof.io/point-id"] == of.id


def test_a_variable_of_the_matrix_wins_over_the_base_pod() -> None:
    """One entry per name, with the user's value."""
    container = _container(_body(point(env={"HF_HOME": "/models", "NEW": "1"})))
    assert (_env(container)["HF_HOME"], _env(container)["NEW"]) == ("/models", "1")


def test_the_pod_ends_by_itself_after_the_limits_of_the_matrix() -> None:
    """A kprof that dies leaves no device taken for ever."""
    deadline = _body(point(timeouts={"startupSeconds": 100, "probeSeconds": 20}))["spec"]["activeDeadlineSeconds"]
    assert 220 < deadline <= 1000


def test_the_deadline_is_no_shorter_than_what_the_matrix_allows() -> None:
    """An image may take as long as `startupSeconds`, and the start-up after it once more."""
    deadline = _body(point(timeouts={"startupSeconds": 3600, "probeSeconds": 120}))["spec"]["activeDeadlineSeconds"]
    assert deadline == 3600 + 3600 + 120 + 600


# Names and labels


def test_names_and_labels_are_valid_in_kubernetes() -> None:
    """The name is a DNS label, labels fit the grammar of label values, whatever model and group are called."""
    of = point(name="a" + "-long.name" * 4 + "x", model="Org/Model:With$Odd (chars)", arguments={"tp": 2})
    manifest = render_pod(of, RUN, attempt=12)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", manifest.name)
    assert manifest.body["metadata"]["name"] == manifest.name
    assert manifest.labels == manifest.body["metadata"]["labels"]
    for key, value in manifest.labels.items():
        assert re.fullmatch(r"([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", key)
        assert re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?", value)
    assert (manifest.labels["kprof.io/run"], manifest.labels["kprof.io/attempt"]) == (RUN, "12")
    assert manifest.labels["kprof.io/point"] == of.hash


def test_runs_points_and_attempts_have_names_of_their_own() -> None:
    """A new attempt is never taken for the old one."""
    one, two = point(), point(arguments={"seed": 1})
    names = {render_pod(p, run, attempt).name for p in (one, two) for run in ("aaaa", "bbbb") for attempt in (0, 1)}
    assert len(names) == 8


def test_a_changed_pod_has_another_spec_label() -> None:
    """Adoption compares it: an equal pod may be adopted, another may not."""

    def label(of: Point) -> str:
        return render_pod(of, RUN).labels["kprof.io/spec"]

    assert label(point()) == label(point())
    assert label(point()) != label(point(timeouts={"startupSeconds": 1}))


def test_rendering_twice_does_not_share_anything() -> None:
    """Two pods are two documents; changing one leaves the other alone."""
    of = point(arguments={"tp": 2}, pod={"tolerations": [{"key": "a"}], "volumes": [{"name": "v", "emptyDir": {}}]})
    first, second = _body(of), _body(of)
    first["spec"]["tolerations"].append({})
    first["spec"]["volumes"][-1]["name"] = "changed"
    assert _body(of) == second
    assert "&id" not in yaml.safe_dump_all([second, _body(of)])


POINTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "published": {"arguments": {"tp": 2}, "huggingFaceToken": TOKEN},
    "cpu": {"accelerator": {"vendor": "cpu"}},
    "claim": {"cache": {"claimName": "models"}},
    "overlay": {
        "env": {"A": "b"},
        "pod": {
            "tolerations": [{"key": "a", "operator": "Exists", "tolerationSeconds": 3, "effect": "NoExecute"}],
            "affinity": {"nodeAffinity": {}},
            "resources": {"limits": {"memory": "1Gi"}},
            "shmSize": "1Gi",
        },
    },
}


@pytest.mark.parametrize("simulation", [None, Simulation()], ids=["real", "simulated"])
@pytest.mark.parametrize("name", POINTS)
def test_the_pod_fits_the_newest_schema_of_kubernetes(name: str, simulation: Simulation | None) -> None:
    """Unknown and misspelled fields are errors."""
    body = _body(point(**POINTS[name]), simulation)
    kubernetes_validate.validate(body, kubernetes_validate.latest_version(), strict=True)


# Simulation


def test_a_simulated_pod_runs_the_simulator_without_the_token() -> None:
    """Same arguments and devices; image, token and cache are not those of a real measurement."""
    of = point(
        arguments={"tp": 2},
        huggingFaceToken=TOKEN,
        cache={"claimName": "models"},
        accelerator={"product": "NVIDIA-L4"},
        env={"MINE": "1"},
    )
    real, simulated = _body(of), _body(of, Simulation("sim:1", 50))
    container = _container(simulated)
    env = _env(container)
    assert container["image"] == "sim:1"
    assert (container["args"], container["command"]) == (_container(real)["args"], _container(real)["command"])
    assert container["resources"] == _container(real)["resources"]
    assert "HF_TOKEN" not in env
    assert "secretKeyRef" not in json.dumps(simulated)
    assert "models" not in json.dumps(simulated["spec"]["volumes"])
    assert {
        "KPROF_SIMULATE_VERSION": "0.11.0",
        "KPROF_SIMULATE_DEVICE": "NVIDIA-L4",
        "KPROF_SIMULATE_GPUS": "2",
        "KPROF_SIMULATE_SPEED": "50",
        "MINE": "1",
    }.items() <= env.items()
    assert not [name for name in _env(_container(real)) if name.startswith("KPROF_")]


H100 = {"vendor": "nvidia", "product": "NVIDIA-H100-80GB-HBM3"}


@pytest.mark.parametrize("own", [{}, {"disk": "fast"}])
def test_a_product_is_selected_by_the_vendors_label(own: dict[str, str]) -> None:
    """On a mixed cluster another product would be measured under the name of this one."""
    spec = render_pod(point(accelerator=H100, pod={"nodeSelector": own}), RUN).body["spec"]
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", **own}


def test_a_simulated_product_may_be_anywhere() -> None:
    """No node need have what is only computed."""
    spec = render_pod(point(accelerator=H100), RUN, 0, Simulation("i:1", 1.0)).body["spec"]
    assert "nodeSelector" not in spec


def test_a_pod_may_run_as_another_user() -> None:
    """For images that do not run as root, in a namespace that enforces `restricted`."""
    context = {"runAsNonRoot": True, "runAsUser": 1000}
    assert render_pod(point(pod={"securityContext": context}), RUN).body["spec"]["securityContext"] == context
