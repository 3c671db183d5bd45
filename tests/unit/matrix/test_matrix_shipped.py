"""The matrices and the editor's schema that ship with kprof."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator.errors import UsageError
from orchestrator.matrix import load_matrix
from orchestrator.matrix.json_schema import schema_text
from orchestrator.resources import shipped
from tests.fakes.matrix import document, group, load_text

MATRICES = sorted(shipped("matrices").glob("*.yaml"))
H100 = shipped("matrices") / "h100.yaml"

# Rows of the published table: label, model, tensor parallel size, utilization, max-model-len.
# Its gpt-oss-120b row says 0.9, but its figures add up at 0.95 only.
ROWS = [
    ("gpt-oss-20b (MoE)", "openai/gpt-oss-20b", 1, 0.9, 16000),
    ("gpt-oss-120b (MoE)", "openai/gpt-oss-120b", 1, 0.95, 16000),
    ("Llama-3.3-70B-FP8", "RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", 2, 0.9, 16000),
    ("Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct", 1, 0.9, 16000),
    ("Qwen3-0.6B", "Qwen/Qwen3-0.6B", 1, 0.9, 16000),
    ("Qwen3-32B", "Qwen/Qwen3-32B", 1, 0.9, 16000),
    ("Qwen3-32B", "Qwen/Qwen3-32B", 2, 0.9, 16000),
    ("Mistral-Small-3.2-24B", "mistralai/Mistral-Small-3.2-24B-Instruct-2506", 1, 0.95, 16000),
]
FAILED_ROWS = [
    ("Deepseek-R1 (FP8)", "deepseek-ai/DeepSeek-R1", 1, 16000, "oom.load"),
    ("Llama-3.3-70B-FP8", "RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", 1, 16000, "kv.no_room"),
    ("Qwen3-32B", "Qwen/Qwen3-32B", 1, 32000, "kv.context_too_long"),
]


def test_the_h100_matrix_is_the_published_table() -> None:
    """Eight configurations that start, in the order of the table, then the three that do not."""
    points = load_matrix(H100).points
    started = [p for p in points if p.expect is None]
    failed = [p for p in points if p.expect is not None]
    assert [
        (
            p.label,
            p.model,
            p.argument("tensor-parallel-size") or 1,
            p.argument("gpu-memory-utilization"),
            p.argument("max-model-len"),
        )
        for p in started
    ] == ROWS
    assert [
        (p.label, p.model, p.argument("tensor-parallel-size") or 1, p.argument("max-model-len"), p.expect)
        for p in failed
    ] == FAILED_ROWS


def test_every_h100_point_runs_as_the_published_one_did() -> None:
    """vLLM 0.11.0, blocks of 128 tokens, prefix caching on, one device per rank, the token by reference."""
    for p in load_matrix(H100).points:
        assert (p.image, p.vllm_version) == ("vllm/vllm-openai:v0.11.0", "0.11.0")
        assert "--enable-prefix-caching" in p.argv
        assert "--block-size=128" in p.argv
        assert (p.accelerator.resource, p.accelerator.count) == (
            "nvidia.com/gpu",
            p.argument("tensor-parallel-size") or 1,
        )
        assert p.token_secret == ("llm-d-hf-token", "HF_TOKEN")


def test_mistral_is_loaded_in_its_own_formats() -> None:
    """Tokenizer, configuration and weights are read in Mistral's format, for this model only."""
    flags = {"--tokenizer-mode=mistral", "--config-format=mistral", "--load-format=mistral"}
    for p in load_matrix(H100).points:
        assert flags <= set(p.argv) if p.model.startswith("mistralai/") else not flags & set(p.argv)


def test_the_checked_in_schema_is_the_generated_one() -> None:
    """`python -m orchestrator.matrix.json_schema > matrices/schema.json` brings it up to date."""
    assert (shipped("matrices") / "schema.json").read_text(encoding="utf-8") == schema_text()


@pytest.fixture(scope="module")
def validator() -> Any:
    """Return a validator of the generated schema, itself checked against its meta-schema."""
    schema = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", MATRICES, ids=lambda path: path.name)
def test_shipped_matrices_load_and_fit_the_schema(path: Path, validator: Any) -> None:
    """What an editor accepts and what kprof accepts agree on the shipped files."""
    assert load_matrix(path).points
    validator.validate(yaml.safe_load(path.read_text(encoding="utf-8")))


BAD: dict[str, dict[str, Any]] = {
    "unknown field": document(group(modle="x")),
    "no groups": document(),
    "bad vendor": document(group(accelerator={"vendor": "acme"})),
    "bad version": document(group()) | {"version": 2},
    "seconds as text": document(group(timeouts={"startupSeconds": "60"})),
    "bad name": document(group(name="Big")),
    "failure kind in capitals": document(group(expect="OOM")),
}


@pytest.mark.parametrize("name", BAD)
def test_the_schema_refuses_what_kprof_refuses(name: str, validator: Any) -> None:
    """An editor marks the mistake before kprof is run."""
    with pytest.raises(UsageError):
        load_text(yaml.safe_dump(BAD[name]))
    assert not validator.is_valid(BAD[name])
