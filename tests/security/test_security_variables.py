"""`$(VAR)` of a matrix on a real kubelet, which would put a Secret's value in its place."""

import secrets
from pathlib import Path

import pytest
import yaml

from tests.e2e import stored
from tests.e2e.command import Kprof
from tests.e2e.kube import IMAGE, Kube
from tests.fakes.matrix import document, group

NAMES = ["$(HF_TOKEN)", "$$(HF_TOKEN)", "$(PLAIN)", "$(NOBODY)", "$HF_TOKEN", "a$$b"]


@pytest.mark.e2e
@pytest.mark.timeout(120, func_only=True)
def test_no_variable_of_a_matrix_is_expanded(kube: Kube, namespace: str, tmp_path: Path) -> None:
    """The server gets each word as the matrix says it: the log tells its arguments, and a variable's value."""
    token, plain = f"hf_{secrets.token_hex(16)}", f"Zq{secrets.token_hex(14)}"
    kube.call("create", "secret", "generic", "token", f"--from-literal=HF_TOKEN={token}", "-n", namespace)
    speed = {"KPROF_SIMULATE_SPEED": "500", "PLAIN": plain}
    fields = document(
        group("words", model="Qwen/Qwen3-0.6B", arguments={"served-model-name": [NAMES]}, env=speed),
        group("value", model="Qwen/Qwen3-0.6B", env=speed | {"KPROF_SIMULATE_DEVICE": "$(PLAIN)"}),
        image=IMAGE,
        huggingFaceToken={"secretName": "token", "key": "HF_TOKEN"},
        pod={"imagePullPolicy": "Never"},
    )
    path = tmp_path / "words.yaml"
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    kprof = Kprof(tmp_path, kube.kubeconfig)
    try:
        swept = kprof.run("sweep", str(path), "-n", namespace, "--format", "json")
        (row,) = swept.json()["rows"]
        words, value = (kprof.run("logs", point).stdout for point in (row["point"], "value"))
    finally:
        kprof.close()
    assert swept.code == 1, swept.stderr
    assert f"'served_model_name': {NAMES}" in words
    assert "$(PLAIN)" in value
    everything = stored.raw_bytes(kprof.store) + stored.logs(kprof.store) + (words + value).encode()
    assert token.encode() not in everything
    assert plain.encode() not in everything
