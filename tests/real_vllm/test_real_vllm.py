"""A real `vllm serve` (CPU build, a tiny model with dummy weights) through the local cluster, as a user runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
INSTALL_SECONDS = 1500
SWEEP_SECONDS = 600
NOT_TO_BE_HAD = 3

MATRIX = """
version: 1
name: tiny
defaults:
  image: vllm/vllm-openai-cpu:v0.32.0
  accelerator: {{vendor: cpu}}
  arguments: {{max-model-len: 512, max-num-seqs: 8, enforce-eager: true, load-format: dummy, block-size: 32}}
  env: {{HF_HUB_OFFLINE: "1", TRANSFORMERS_OFFLINE: "1"}}
groups:
  - {{name: fixed, model: {model}, arguments: {{kv-cache-memory-bytes: 2097152}}}}
  - {{name: share, model: {model}, arguments: {{gpu-memory-utilization: 0.1, enable-prefix-caching: false}}}}
  - name: too-long
    model: {model}
    arguments: {{kv-cache-memory-bytes: 1048576, max-model-len: 4096}}
    expect: kv.context_too_long
"""

pytestmark = [pytest.mark.real_vllm, pytest.mark.timeout(INSTALL_SECONDS + SWEEP_SECONDS)]


@pytest.fixture(scope="module")
def vllm() -> Path:
    """Return the real `vllm`, installed on first use; skips, loudly, where it was not asked for or cannot be had."""
    if os.environ.get("KPROF_REAL_VLLM") != "1":
        pytest.skip("REAL VLLM SKIPPED: run `make real-vllm` (downloads 2 to 5 GB once)")
    # PyPI has PyTorch's CUDA build only; it runs on a CPU as well, and the log names it.
    command = [sys.executable, str(HERE / "install.py"), "--pypi-torch"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode == NOT_TO_BE_HAD:
        pytest.skip(f"REAL VLLM SKIPPED: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def results(vllm: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Return what `kprof show` says of each point after one sweep."""
    folder = tmp_path_factory.mktemp("real-vllm")
    model = folder / "model"
    subprocess.run([sys.executable, str(HERE / "tiny_model.py"), str(model)], check=True, capture_output=True)
    (folder / "tiny.yaml").write_text(MATRIX.format(model=model), encoding="utf-8")
    env = {**os.environ, "PATH": f"{vllm.parent}:{os.environ['PATH']}", "KPROF_STATE": str(folder / "state")}
    kprof = [sys.executable, "-m", "orchestrator.cli"]
    sweep = [*kprof, "sweep", "tiny.yaml", "--on", "local", "--max-parallel", "1", "--format", "json"]
    done = subprocess.run(
        sweep, cwd=folder, env=env, capture_output=True, text=True, timeout=SWEEP_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    documents = {"summary": json.loads(done.stdout)}
    for point in ("fixed", "share", "too-long"):
        show = [*kprof, "show", point, "--format", "json"]
        text = subprocess.run(show, cwd=folder, env=env, capture_output=True, text=True, check=True).stdout
        documents[point] = json.loads(text)
    assert not list((folder / "state" / "pods").iterdir()), "a local pod was left behind"
    return documents


def test_figures_are_measured_and_the_log_is_read(results: Mapping[str, Any]) -> None:
    assert results["summary"]["simulated"] is False
    assert {row["source"] for row in results["summary"]["rows"]} == {"measured"}
    start_up = results["fixed"]["start_up"]
    assert start_up["vllm_version"].startswith("0.32.0")
    assert start_up["engine_ready"] is True
    assert start_up["facts"]["kv_cache_tokens"] == 4096
    assert start_up["facts"]["kv_cache_blocks"] == 128


@pytest.mark.parametrize("point", ["fixed", "share"])
def test_metrics_agree_with_the_log(results: Mapping[str, Any], point: str) -> None:
    metrics = results[point]["metrics"]
    assert metrics["agrees_with_log"] is True
    assert metrics["usage_ratio"] == 0.0
    assert metrics["block_size"] == 32


def test_live_requests_hold_exactly_the_blocks_of_the_formula(results: Mapping[str, Any]) -> None:
    checks = [results[point]["live"] for point in ("fixed", "share")]
    assert all(check["agrees"] is not False for check in checks), checks
    # A tiny model may be through a request before it was seen; not all of both points' sixteen can be.
    assert any(check["agrees"] is True and check["samples"] for check in checks), checks


def test_a_context_that_does_not_fit_is_explained(results: Mapping[str, Any]) -> None:
    failure = results["too-long"]["failure"]
    assert failure["kind"] == "kv.context_too_long"
    assert "max seq len (4096)" in failure["line"]
    assert "--max-model-len 2016 (63 blocks of 32) fits" in failure["remedy"]
