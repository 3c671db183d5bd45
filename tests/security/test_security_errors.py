"""What goes wrong with credentials is one error in words, which says neither the credentials nor a traceback."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.faults.background import BackgroundServer
from tests.faults.faults import refusal
from tests.faults.scripts import serving
from tests.security.commands import environment, inside
from tests.security.places import matrix
from tests.security.shapes import canary

SECRET = canary("word", "kubeconfig of errors")
TOKEN = canary("hf", "token of errors")
PASSWORD = canary("word", "password of errors")
EXEC_VERSION = "client.authentication.k8s.io/v1"


def _login(script: str) -> dict[str, Any]:
    call = {"command": "sh", "args": ["-c", script], "interactiveMode": "Never"}
    return {"exec": {"apiVersion": EXEC_VERSION, **call}}


def _certificate(data: str, key: str) -> dict[str, Any]:
    return {"client-certificate-data": data, "client-key-data": key}


def _data(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# A kubeconfig's user and server, and what is wrong with them.
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "login command that fails": (_login(f"echo 'refresh_token: {SECRET} has expired' >&2; exit 1"), "https://h"),
    "login command that hides it": (_login(f"printf '\\033[2Jtoken: {SECRET}\\n' >&2; exit 1"), "https://h"),
    "login command without JSON": (_login(f"echo token={SECRET}"), "https://h"),
    "login command without a token": (_login(f"echo '{json.dumps({'password': SECRET})}'"), "https://h"),
    "login command that is not there": ({"exec": {"apiVersion": EXEC_VERSION, "command": f"/{TOKEN}"}}, "https://h"),
    "token file that is not there": ({"tokenFile": f"/no/{TOKEN}"}, "https://h"),
    "password in the server's URL": ({"token": SECRET}, f"http://user:{SECRET}@127.0.0.1:1"),
    "server that is no URL": ({"token": SECRET}, f"http://user:{SECRET}@[::"),
    "certificate that is no data": (_certificate(TOKEN, SECRET), "https://127.0.0.1:1"),
    "certificate that is none": (_certificate(_data("x"), _data(SECRET)), "https://127.0.0.1:1"),
}


def _kubeconfig(folder: Path, user: dict[str, Any], server: str, **cluster: str) -> Path:
    path = folder / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@pytest.mark.parametrize("problem", BROKEN)
def test_a_broken_kubeconfig_is_one_error_without_its_secrets(tmp_path: Path, problem: str) -> None:
    """What a login command says is passed on like everything foreign."""
    user, server = BROKEN[problem]
    variables = environment(tmp_path, _kubeconfig(tmp_path, user, server))
    code, said = inside(variables, "clean")
    text = said.decode()
    assert code == 4
    assert text.count("error: ") >= 1
    assert SECRET not in text
    assert TOKEN not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("command", ["sweep", "clean", "doctor"])
def test_credentials_that_ran_out_are_one_error(tmp_path: Path, command: str) -> None:
    """Exit code 4 and what to do, in every command that speaks to a cluster."""
    with BackgroundServer(serving) as background:
        background.do(lambda: background.server.faults.add(refusal(401, "Unauthorized", "Unauthorized")))
        variables = environment(tmp_path, background.server.kubeconfig(tmp_path))
        code, said = inside(variables, command, *([] if command == "clean" else [str(matrix(tmp_path))]))
    assert code == 4
    assert said.startswith(b"error: ")
    assert b"Unauthorized" in said


# What a matrix may say by mistake; the error names the place, not the value.
MATRICES = {
    "token in the environment": f"env: {{HF_TOKEN: {TOKEN}}}",
    "key as an argument": f"arguments: {{api-key: {TOKEN}}}",
    "token as an argument": f"arguments: {{hf-token: {TOKEN}}}",
    "token inside an argument": f"arguments: {{model-loader-extra-config: {{distributed: true, auth: [{TOKEN}]}}}}",
    "password inside an argument": f"arguments: {{override-x: {{db: {{password: {PASSWORD}}}}}}}",
    "token on an axis": f"arguments: {{revision: [main, {TOKEN}]}}",
    "token in an annotation": f"pod: {{annotations: {{a: {TOKEN}}}}}",
    "password in the environment": f"env: {{MY_PASSWORD: {PASSWORD}}}",
    "URL in the environment": f"env: {{HTTPS_PROXY: 'http://u:{PASSWORD}@proxy:3128'}}",
    "broken YAML": f"env: {{HF_TOKEN: {TOKEN}: [",
    "token as a key": f"arguments: {{'{TOKEN} x': 1}}",
    "token as a field": f"{TOKEN}: 1",
    "value of another kind": f"timeouts: {{queueSeconds: {TOKEN}}}",
    "failure that is none": f"expect: {TOKEN}",
    "control character": 'image: "\\e[2J\\x9b2J"',
    "hostile field": '"\\e[2J\\u202e": 1',
    "hostile argument": 'arguments: {"\\e]0;x\\a": "\\e[2J"}',
}


@pytest.mark.parametrize("mistake", MATRICES)
def test_a_bad_matrix_is_told_without_its_secrets(tmp_path: Path, mistake: str) -> None:
    """The error may quote what it does not know; a token in it is masked, a control character a dot."""
    path = tmp_path / "bad.yaml"
    group = f"  - name: a\n    model: m/m\n    image: i:1\n    {MATRICES[mistake]}\n"
    if "image:" in MATRICES[mistake]:
        group = group.replace("    image: i:1\n", "")
    path.write_text(f"version: 1\nname: m\ngroups:\n{group}", encoding="utf-8")
    code, said = inside(environment(tmp_path, None), "render", str(path), terminal=True)
    assert code == 2, said
    assert said.startswith(b"error: ")
    assert TOKEN.encode() not in said
    assert PASSWORD.encode() not in said
    assert b"\x1b" not in said
    assert "\u202e".encode() not in said
