"""Secrets of every shape come from every place, and are nowhere in what kprof prints, keeps or shows to others."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.faults.background import BackgroundServer
from tests.faults.faults import CutOff, on, refusal
from tests.security.commands import environment, inside
from tests.security.headers import Headers
from tests.security.outputs import kept, read_all
from tests.security.places import PLACES, matrix, refuse, script
from tests.security.processes import Onlooker
from tests.security.shapes import SHAPES, Shape, canary, forms, said_in

# What kprof holds itself, or could read, beside what others say.
HELD = {
    "token of the kubeconfig": canary("word", "kubeconfig"),
    "Secret of the cluster": canary("hf", "secret"),
    "environment": canary("hf", "environment"),
    "variable of the matrix": canary("word", "matrix"),
    "annotation of a node": canary("hf", "node"),
    "annotation of the namespace": canary("hf", "namespace"),
    "annotation of a pod": canary("word", "pod"),
}
RUN_SECONDS = 60.0


@dataclass(frozen=True)
class Swept:
    """A sweep and all commands after it: what was said and kept, and what proves that the secrets were there."""

    said: dict[str, bytes]
    heard: Headers
    onlooker: Onlooker
    server_left: list[str]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swept]:
    """Sweep once through every place, then run every command."""
    folder = tmp_path_factory.mktemp("canary")
    with BackgroundServer(script(said_in)) as background:
        background.do(lambda: _prepare(background))
        heard = Headers()
        background.do(lambda: background.server.faults.add(heard))
        variables = environment(
            folder, _kubeconfig(background.server.kubeconfig(folder), folder), HF_TOKEN=HELD["environment"]
        )
        secret = {"huggingFaceToken": {"secretName": "canary", "key": "HF_TOKEN"}}
        pod = {"imagePullPolicy": "IfNotPresent", "annotations": {"note": HELD["annotation of a pod"]}}
        plan = str(matrix(folder, env={"DIALECT": HELD["variable of the matrix"]}, pod=pod, **secret))
        # Cut in the middle of a secret, the log is taken up again.
        background.do(lambda: background.server.faults.add(CutOff(lambda call: call.is_log, 6, 1500, "abort")))
        with Onlooker(str(folder), folder, "kprof.db*") as onlooker:
            done = subprocess.run(
                [sys.executable, "-m", "orchestrator.cli", "sweep", plan],
                cwd=folder,
                env=variables,
                capture_output=True,
                timeout=RUN_SECONDS,
                check=False,
            )
        assert done.returncode == 1, done.stderr.decode()
        said = {"sweep": done.stdout, "talk of the sweep": done.stderr} | read_all(variables)
        for name, arguments in {
            "dry run": ("sweep", plan, "--dry-run"),
            "doctor": ("doctor", plan),
            "doctor as JSON": ("doctor", plan, "--format", "json"),
            "clean": ("clean", "--format", "json"),
        }.items():
            said[name] = inside(variables, *arguments)[1]
        said |= _errors(background, variables, plan)
        said |= _parsed(variables, folder)
        shutil.rmtree(folder / "logs")
        said |= kept(folder) | onlooker.files
        yield Swept(said, heard, onlooker, background.server.left())


def _prepare(background: BackgroundServer) -> None:
    server = background.server
    refuse(server, said_in)
    data = {"data": {"HF_TOKEN": forms(HELD["Secret of the cluster"])[0].decode()}}
    server.objects.add(("secrets", "default", "canary"), data)
    for key, name in (
        (("nodes", "", "node-1"), "annotation of a node"),
        (("namespaces", "", "default"), "annotation of the namespace"),
    ):
        server.objects.patch(key, {"metadata": {"annotations": {"note": HELD[name]}}})


def _kubeconfig(plain: Path, folder: Path) -> Path:
    """Return a kubeconfig whose token comes from a login command."""
    config = yaml.safe_load(plain.read_text(encoding="utf-8"))
    status = f'{{"token": "{HELD["token of the kubeconfig"]}"}}'
    version = "client.authentication.k8s.io/v1"
    answer = f'{{"apiVersion": "{version}", "kind": "ExecCredential", "status": {status}}}'
    (folder / "login").write_text(answer, encoding="utf-8")
    login = {"apiVersion": version, "command": "cat", "args": [str(folder / "login")], "interactiveMode": "Never"}
    config["users"] = [{"name": "u", "user": {"exec": login}}]
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def _errors(background: BackgroundServer, variables: dict[str, str], plan: str) -> dict[str, bytes]:
    """Run commands against an API server that refuses, and says secrets; a place of its own for each."""
    said = {}
    for name, (method, end, arguments) in REFUSING.items():
        fault = refusal(403, "Forbidden", said_in(name), where=on(method, end))
        with background.server.faults.during(fault):
            code, said[name] = inside(variables, *arguments, *([plan] if arguments[0] != "clean" else []))
        assert fault.met, f"{name}: nobody asked"
        assert code != 0 or arguments[0] == "doctor", name
    return said


REFUSING = {
    "refused anchor": ("POST", "/configmaps", ("sweep", "--fresh")),
    "refused Secret": ("GET", "/secrets/canary", ("doctor",)),
    "refused Secret as JSON": ("GET", "/secrets/canary", ("doctor", "--format", "json")),
    "refused list": ("GET", "/configmaps", ("clean",)),
}


def _parsed(variables: dict[str, str], folder: Path) -> dict[str, bytes]:
    """Parse files that say everything, in two encodings."""
    (folder / "logs").mkdir()
    head = "INFO 01-01 00:00:01 [m.py:1] Model loading took 14.99 GiB and 7.4 seconds\n"
    said = {}
    for encoding in ("utf-8", "utf-16"):
        name = f"parse {encoding}"
        lines = [f"{head[:-1]} {line}\n" for line in said_in(name).split("\n")]
        failures = [f"ValueError: No available memory for the cache blocks. {line}\n" for line in lines]
        file = folder / "logs" / encoding
        file.write_bytes("".join([head, *lines, "Took 3.5 GiB, ", *failures]).encode(encoding))
        for more in ((), ("--format", "json"), ("--unread",)):
            said[" ".join((name, *more))] = inside(variables, "parse", str(file), *more)[1]
    return said


def _speakers(swept: Swept, secret: str) -> list[str]:
    return [name for name, text in swept.said.items() if any(form in text for form in forms(secret))]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("place", [*PLACES, *REFUSING, "parse utf-8", "parse utf-16"])
def test_a_secret_of_any_shape_from_any_place_is_nowhere(swept: Swept, place: str, shape: Shape) -> None:
    """Neither printed, nor in the store, nor in its write-ahead log while the sweep ran."""
    assert _speakers(swept, shape.canary(place)) == []


@pytest.mark.parametrize("name", HELD)
def test_a_secret_that_kprof_holds_is_nowhere(swept: Swept, name: str) -> None:
    """Whatever it was given to work with stays with it."""
    assert _speakers(swept, HELD[name]) == []


def test_the_secrets_were_there(swept: Swept) -> None:
    """Only so their absence proves something: the server heard the token, and the places of secrets are masked."""
    assert set(swept.heard.values) == {f"Bearer {HELD['token of the kubeconfig']}"}
    logs = swept.said["the store's logs"]
    assert logs.count(b"[redacted]") > 3 * len(SHAPES)
    for name in ("talk of the sweep", "summary --format json", "show answer", "show refused", *REFUSING):
        assert b"[redacted]" in swept.said[name], name
    assert any(name.endswith("-wal") for name in swept.said)
    assert swept.server_left == []


def test_no_secret_is_in_an_argument_list(swept: Swept) -> None:
    """Everybody on a machine can read those."""
    seen = swept.onlooker.arguments
    assert any(b"orchestrator.cli" in words for words in seen)
    secrets = [*HELD.values(), *(shape.canary(place) for shape in SHAPES for place in PLACES)]
    assert [words for words in seen if any(secret.encode() in words for secret in secrets)] == []
