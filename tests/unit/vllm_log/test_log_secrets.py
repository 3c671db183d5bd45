"""Secrets in every shape that logs give them: none leaves the parser."""

import json

import pytest

from orchestrator.vllm_log import parse_log, redact

SECRET = "Sup3rS3cretV4lue"
SHAPES = [
    "[{'name': 'HF_TOKEN', 'value': '%'}]",
    r"\"--api-key\",\"%\"",
    "['--api-key', 'k1', '%', '--port', '8000']",
    "snapshot_download('x', token='%')",
    "https://a/b?AWSAccessKeyId=%&x=1",
    "https://a/b?X-Goog-Signature=%",
    "http://user:ab/%@proxy:80",
    "https://user:p@%@host/x",
    "error: argument --api-key: invalid parse value: '%'",
    "Authorization: Token %",
    "{'Authorization': 'Digest %'}",
    "MODELSCOPE_API_TOKEN=%",
    "AZURE_STORAGE_KEY=%",
    "private_key=%",
    "passphrase: %",
    "DB_PASS=%",
    "Cookie: %",
    r'"api_key": "ab\"%"',
    'api_key=["a", "b]%"]',
    "password='a long % phrase that is never closed",
]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_secret_does_not_leave_the_parser(shape: str) -> None:
    """Neither in the line of a failure nor in that of a figure."""
    words = shape.replace("%", SECRET)
    log = f"ValueError: No available memory for the cache blocks. {words}\nAvailable KV cache memory: 1.5 GiB {words}\n"
    (found,) = parse_log(log.encode())
    document = json.dumps(found.to_json("x"))
    assert found.failure is not None
    assert found.facts == {"kv_cache_gib": 1.5}
    assert SECRET not in document
    assert "[redacted]" in document


def test_words_that_only_sound_like_secrets_stay() -> None:
    """Counts of tokens and tokenizers are evidence."""
    text = "max_num_batched_tokens=8192, tokenizer='x', num_tokens: 5, Maximum concurrency for 8,192 tokens: 3"
    assert redact(text) == text


CUT = "://minio:Sup3rS3cretV4lue@minio.example.com/models"


@pytest.mark.parametrize("length", range(len("://minio:S"), len(CUT)))
def test_half_a_url_keeps_its_secret(length: int) -> None:
    """A line that is too long is cut anywhere, within the credentials of an address too."""
    assert "minio:S" not in redact("x" * 100 + " s3=https" + CUT[:length])


@pytest.mark.parametrize(
    "line",
    [
        "Starting vLLM server on http://0.0.0.0:8000",
        "distributed_init_method=tcp://10.0.0.7:48271",
        "listening on http://host:8000/",
        "Connecting to head (ray://head.ray.svc:10001)",
        "see http://host:8000.",
        "the address is http://[::1]:8000",
        "docs: https://docs.vllm.ai/en/latest/usage/troubleshooting.html#python-multiprocessing:x",
        "curl http://host:8000/v1/models, http://host:port",
        "zmq tcp://*:5555, tcp://*:*",
    ],
)
def test_an_address_without_credentials_stays(line: str) -> None:
    """At the end of a line, too: a port is no password."""
    assert redact(line) == line


def test_evidence_is_redacted_before_it_is_cut() -> None:
    """A secret that lies across the last character that is shown is taken out whole."""
    for before in range(1960, 2001):
        line = (
            "ValueError: No available memory for the cache blocks. " + "x" * (before - 54) + f" Authorization {SECRET}"
        )
        line = line.replace("Authorization ", "https://minio:") + "@minio/models " + "y" * 900
        (found,) = parse_log(line.encode() + b"\n")
        assert found.failure is not None
        assert "minio:" not in found.failure.evidence.line
        assert found.failure.evidence.line.endswith(" [cut]")


def test_a_key_that_stands_behind_its_name_is_taken_out() -> None:
    """As `env` and netrc print it, without a sign between them."""
    key = "0123456789abcdef" * 2 + "01234567"
    assert redact(f"WANDB_API_KEY {key} is used") == "WANDB_API_KEY [redacted] is used"
