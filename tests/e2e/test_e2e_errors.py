"""What kprof says when it cannot begin: one clear message, the exit code of the contract, nothing created."""

import copy
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.e2e import stored
from tests.e2e.command import H100, SPEED, Kprof, Outcome, Running
from tests.e2e.kube import Kube, Object

ANSWER_SECONDS = 30.0


def check_error(outcome: Outcome, code: int, *words: str) -> None:
    """Check exit code and message; every word must stand in it, and stdout stays empty."""
    assert outcome.code == code, outcome.stderr
    assert outcome.stdout == ""
    for word in words:
        assert word in outcome.error
    assert len(outcome.error.splitlines()) <= 4, outcome.error


def check_nothing(kprof: Kprof, kube: Kube | None = None, namespace: str | None = None) -> None:
    """Check that neither pods nor ConfigMaps nor results came of it."""
    assert stored.results(kprof.store) == []
    assert stored.attempts(kprof.store) == []
    if kube is not None:
        assert kube.left(namespace) == []


def write_matrix(folder: Path, **changes: object) -> str:
    """Write a small matrix with some fields changed and return its path."""
    document: Object = {
        "version": 1,
        "name": "small",
        "defaults": {"image": "vllm/vllm-openai:v0.11.0"},
        "groups": [{"name": "a", "model": "Qwen/Qwen3-0.6B"}],
        **changes,
    }
    path = folder / "matrix.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


def test_a_context_that_is_not_there(kube: Kube, cluster_kprof: Kprof) -> None:
    """The name that was asked for is in the message."""
    outcome = cluster_kprof.run("sweep", H100, *SPEED, "--context", "no-such-context")
    check_error(outcome, 4, "no-such-context")
    check_nothing(cluster_kprof, kube)


@contextmanager
def silent_server() -> Iterator[int]:
    """Listen on a port and never answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


def test_a_server_that_refuses_and_one_that_is_silent(kprof: Kprof) -> None:
    """Refused connections and a server that never answers end within half a minute, and the message names it."""
    with silent_server() as silent, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        running: dict[str, Running] = {}
        for port in (silent, closed.getsockname()[1]):
            path = kprof.folder / f"kubeconfig-{port}"
            path.write_text(json.dumps(_token_config(f"https://127.0.0.1:{port}", "any-token")))
            running[str(port)] = kprof.start("sweep", H100, *SPEED, "--store", f"{port}.db", kubeconfig=path)
        outcomes = {port: process.outcome(seconds=90) for port, process in running.items()}
    for port, outcome in outcomes.items():
        check_error(outcome, 4, port)
        assert outcome.seconds < ANSWER_SECONDS


def _token_config(server: str, token: str, authority: str | None = None) -> Object:
    cluster: Object = {"server": server}
    if authority is None:
        cluster["insecure-skip-tls-verify"] = True
    else:
        cluster["certificate-authority-data"] = authority
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }


@pytest.mark.fault(23, "A")
def test_no_permission(kube: Kube, namespace: str, kprof: Kprof) -> None:
    """A service account without rights: the message says what was denied, and to whom."""
    kube.call("create", "serviceaccount", "nobody", "--namespace", namespace)
    token = kube.call("create", "token", "nobody", "--namespace", namespace).strip()
    config = copy.deepcopy(kube.config())
    config["users"][0]["user"] = {"token": token}
    path = kprof.folder / "nobody"
    path.write_text(json.dumps(config))
    outcome = kprof.run("sweep", H100, *SPEED, "-n", namespace, kubeconfig=path)
    check_error(outcome, 4, "pods", "forbidden", f"{namespace}:nobody")
    check_nothing(kprof, kube, namespace)
    assert token not in outcome.stderr


def test_an_expired_or_wrong_token(kube: Kube, namespace: str, kprof: Kprof) -> None:
    """A token that the server does not know is an error of access, not a crash."""
    config = copy.deepcopy(kube.config())
    config["users"][0]["user"] = {"token": "not-a-token"}
    path = kprof.folder / "stranger"
    path.write_text(json.dumps(config))
    outcome = kprof.run("sweep", H100, *SPEED, "-n", namespace, kubeconfig=path)
    check_error(outcome, 4, "Unauthorized")
    check_nothing(kprof, kube, namespace)


@pytest.mark.fault(17, "A")
def test_a_secret_that_is_not_there(kube: Kube, namespace: str, cluster_kprof: Kprof) -> None:
    """Without --simulate the token's secret is needed; the message gives the command that makes it."""
    outcome = cluster_kprof.run("sweep", H100, "-n", namespace)
    check_error(outcome, 4, "llm-d-hf-token", namespace, "kubectl -n")
    check_nothing(cluster_kprof, kube, namespace)


@pytest.mark.fault(25, "A")
def test_a_namespace_that_is_not_there(kube: Kube, cluster_kprof: Kprof) -> None:
    """The message names the namespace, with and without a secret to look for."""
    for arguments in (("sweep", H100, *SPEED), ("sweep", H100)):
        outcome = cluster_kprof.run(*arguments, "-n", "kprof-no-such-namespace")
        check_error(outcome, 4, "namespace kprof-no-such-namespace does not exist")
    check_nothing(cluster_kprof, kube)


def test_an_unknown_field(kprof: Kprof) -> None:
    """File, line, field."""
    matrix = write_matrix(kprof.folder, grupos=[])
    outcome = kprof.run("sweep", matrix, *SPEED)
    check_error(outcome, 2, "matrix.yaml:", "grupos", "unknown field")
    check_nothing(kprof)


@pytest.mark.parametrize("size", [-1, 0, "two"])
def test_a_tensor_parallel_size_that_is_none(size: object, kprof: Kprof) -> None:
    """Negative, zero or a word."""
    arguments = {"tensor-parallel-size": size}
    matrix = write_matrix(kprof.folder, groups=[{"name": "a", "model": "m/m", "arguments": arguments}])
    outcome = kprof.run("sweep", matrix, *SPEED)
    check_error(outcome, 2, "matrix.yaml:", "tensor-parallel-size", str(size))
    check_nothing(kprof)


@pytest.mark.parametrize("text", ["", "# nothing\n", "version: 1\nname: m\ngroups: []\n", "[]\n"])
def test_an_empty_matrix(text: str, kprof: Kprof) -> None:
    """A file without points is a bad matrix."""
    path = kprof.folder / "matrix.yaml"
    path.write_text(text)
    outcome = kprof.run("sweep", str(path), *SPEED)
    check_error(outcome, 2, "matrix.yaml")
    check_nothing(kprof)


def test_a_matrix_that_is_not_there(kprof: Kprof) -> None:
    """A path that leads nowhere."""
    check_error(kprof.run("sweep", "nowhere.yaml", *SPEED), 2, "nowhere.yaml")


def test_only_that_matches_nothing(kprof: Kprof) -> None:
    """The points that there are stand in the message."""
    outcome = kprof.run("sweep", H100, *SPEED, "--only", "gpt-5*")
    check_error(outcome, 3, "gpt-5*", "gpt-oss-20b")
    check_nothing(kprof)


@pytest.mark.parametrize(
    ("store", "word"),
    [("mysql://user:hunter2@host/db", "mysql"), ("sqlite:///no/such/folder/kprof.db", "folder"), ("://", "--store")],
)
def test_a_store_that_cannot_be(store: str, word: str, kprof: Kprof) -> None:
    """Another database, a folder that is not there, an address that is none; a password in it is not printed."""
    outcome = kprof.run("sweep", H100, "--on", "local", *SPEED, "--store", store)
    check_error(outcome, 2, word)
    assert "hunter2" not in outcome.stderr
    check_nothing(kprof)


def test_a_store_that_is_another_file(kprof: Kprof) -> None:
    """A file that is no database is left as it is."""
    other = kprof.folder / "notes.txt"
    other.write_text("do not overwrite me, I am no database at all\n" * 40)
    before = other.read_bytes()
    outcome = kprof.run("sweep", H100, "--on", "local", *SPEED, "--store", str(other))
    assert outcome.code in {1, 2}
    assert "notes.txt" in outcome.error
    assert other.read_bytes() == before


def test_a_point_that_needs_more_devices_than_max_gpus(kprof: Kprof) -> None:
    """A limit that some point can never keep is said at once; the sweep must not wait for ever."""
    outcome = kprof.run(
        "sweep", H100, "--on", "local", *SPEED, "--only", "qwen3-32b-tp*", "--max-gpus", "1", seconds=20
    )
    check_error(outcome, 2, "qwen3-32b-tp2", "--max-gpus")
    check_nothing(kprof)


def test_a_matrix_without_vllm_on_this_machine(kprof: Kprof) -> None:
    """--on local without --simulate needs `vllm` in PATH; the message says what to do."""
    outcome = kprof.run("sweep", H100, "--on", "local", "--only", "qwen3-0.6b")
    check_error(outcome, 4, "vllm", "--simulate")
    check_nothing(kprof)
