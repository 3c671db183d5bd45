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
