"""Secrets never survive: not in results, not in the evidence that is stored."""

import json
import subprocess
import sys
from base64 import b64encode
from random import Random

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from orchestrator.vllm_log import parse_log, redact, redact_bytes

SECRET = "S3cr3tV4lue0123456789abcd"
CARRIERS = [
    f"hf_{SECRET}",
    f"HF_TOKEN=hf_{SECRET}",
    f"HF_TOKEN={SECRET}",
    f"HF_TOKEN: {SECRET}",
    f"HUGGING_FACE_HUB_TOKEN={SECRET}",
    f"export HF_TOKEN='{SECRET}'",
    f"--api-key {SECRET}",
    f"--api-key={SECRET}",
    f"--api_key {SECRET}",
    f"--api-key '{SECRET}'",
    f'--api-key "{SECRET}"',
    f"'--api-key', '{SECRET}'",
    f"--api-key first{SECRET} {SECRET}",
    f"'api_key': '{SECRET}'",
    f"'api_key': ['{SECRET}', 'x{SECRET}']",
    f'{{"api_key": "{SECRET}"}}',
    f"Namespace(api_key=['{SECRET}'], port=8000)",
    f"Namespace(api_key='{SECRET}', port=8000)",
    f"VLLM_API_KEY={SECRET}",
    f"OPENAI_API_KEY: {SECRET}",
    f"Authorization: Bearer {SECRET}",
    f"'Authorization': 'Bearer {SECRET}'",
    f"authorization: basic {SECRET}",
    f"headers={{'authorization': 'token {SECRET}'}}",
    f"https://user:{SECRET}@huggingface.co/x",
    f"https://{SECRET}@github.com/x",
    f"s3://key:{SECRET}@bucket/x",
    f"https://host/x?token={SECRET}",
    f"https://host/x?a=b&X-Amz-Signature={SECRET}",
    f"https://host/x?a=b&X-Amz-Credential={SECRET}",
    f"AWS_SECRET_ACCESS_KEY={SECRET}",
    f"aws_session_token={SECRET}",
    f"sk-{SECRET}",
    f"ghp_{SECRET}",
    f"password={SECRET}",
    f"'hf_token': '{SECRET}'",
    f"hf_token='{SECRET}'",
    f"secret_key: {SECRET}",
    f"dckr_pat_{SECRET}",
    f"npm_{SECRET}",
    f"r8_{SECRET}",
    f"ya29.{SECRET}",
    f'{{"auths":{{"r.io":{{"auth":"{SECRET}=="}}}}}}',
    f"-----BEGIN PRIVATE KEY-----\\n{SECRET}+{SECRET}\\n-----END PRIVATE KEY-----\\n",
    f"-----BEGIN RSA PRIVATE KEY----- {SECRET}",
]


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_secret_does_not_survive_in_the_stored_log(carrier: str) -> None:
    """However a log, an argument line or a URL carries it."""
    line = f"(APIServer pid=1) INFO 01-01 00:00:00 [a.py:1] args: {carrier}\nnext\n"
    kept = redact_bytes(line.encode())
    assert SECRET.encode() not in kept
    assert kept.startswith(b"(APIServer pid=1) INFO")
    assert kept.endswith(b"\nnext\n")


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_secret_does_not_survive_in_a_result(carrier: str) -> None:
    """Evidence lines are redacted, those of figures and those of failures."""
    log = (
        f"Available KV cache memory: 1.50 GiB {carrier}\n"
        f"vllm serve: error: argument --x: invalid value {carrier}\n"
        f"RuntimeError: Engine core initialization failed {carrier}\n"
    )
    document = parse_log(log.encode())[0].to_json("x")
    assert document["failure"]["kind"] == "config.argument"
    assert document["facts"] == {"kv_cache_gib": 1.5}
    assert SECRET not in json.dumps(document)


@pytest.mark.parametrize(
    "line",
    [
        "Graph capturing finished in 17 secs, took -0.45 GiB",
        "Available KV cache memory: -1.44 GiB",
        "GPU KV cache size: 420,992 tokens",
        "api_key=None, hf_token=None, block_size=128",
        "hf_overrides={}, hf_transfer is not installed, hf_config_path=None",
        "max_tokens=16, num_tokens: 17, tokenizer='x', skip_tokenizer_init=False",
        "loaded https://huggingface.co/Qwen/Qwen3-0.6B/resolve/main/config.json",
        "Using FlashAttention backend for key: value layout",
        "npm_config_registry is not set, npm_lifecycle_event=x, r8_g8_b8_a8_unorm",
        "{'auth': 'disabled', \"auth\": 1}, auth: bearer_token_required",
        "-----BEGIN PUBLIC KEY-----MIIBIjANBgkqhkiG9w0BAQEFAAOC",
        "the secret 12 and the token 0123abcd of the block 0123456789abcdef0123456789abcdef",
    ],
)
def test_what_is_no_secret_stays_as_it_is(line: str) -> None:
    """Figures, negative ones too, and settings without a value are evidence."""
    assert redact(line) == line


def test_negative_figures_reach_the_result() -> None:
    """A minus sign is part of the figure."""
    log = b"Available KV cache memory: -1.44 GiB\nGraph capturing finished in 17 secs, took -0.45 GiB\n"
    assert parse_log(log)[0].facts == {"kv_cache_gib": -1.44, "graph_capture_seconds": 17.0, "cuda_graph_gib": -0.45}


def test_bytes_that_are_no_text_survive_redaction() -> None:
    """Evidence stays byte for byte what it was, secrets aside."""
    assert redact_bytes(b"\xff\xfe\x80 HF_TOKEN=abcdefgh \xc3") == b"\xff\xfe\x80 HF_TOKEN=[redacted] \xc3"


PIECES = st.sampled_from(
    ["api_key", "--api-key", "hf_token", "=", ":", " ", "\n", "'", '"', "[", "]", "(", ")", "abc", "-x", "://", "@",
     "bearer", "hf_", "eyJ", "password", "token", "?token=", ",", "a.b", "None"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=25).map("".join))
@example("api_key=[abc\nabc]")
@example("--api-key \nabc")
@example("bearer\nabcdefgh")
@settings(max_examples=300)
def test_redaction_keeps_every_line_and_reads_each_by_itself(text: str) -> None:
    """Line numbers of the evidence stay true: a secret never reaches over a line's end."""
    once = redact_bytes(text.encode())
    assert once.count(b"\n") == text.count("\n")
    assert b"\n".join(redact_bytes(line) for line in text.encode().split(b"\n")) == once


HOSTILE = {
    "dashes": "'a-' * 20000 + ' key'",
    "dots": "'a.' * 20000 + '://'",
    "words": "'x' * 40000 + 'key'",
    "schemes": "'a://' * 10000",
    "addresses": "'://ab:c' * 6000 + ' '",
    "flags": "'--api-key ' * 4000",
    "lists": "'api_key=[' * 4000",
    "web tokens": "'eyJ' * 14000",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_long_hostile_line_does_not_stall_redaction(name: str) -> None:
    """40 kB of any text are redacted in a moment: the log of a pod must not be able to stop kprof.

    A process of its own is the only thing that can be stopped while a pattern runs.
    """
    code = f"from orchestrator.vllm_log import redact; redact({HOSTILE[name]})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=10)


@pytest.mark.parametrize("before", ["", "2026-01-02T03:04:05Z ", "(EngineCore_DP0 pid=12) ", "\t"])
@pytest.mark.parametrize("width", [64, 70, 76])
@given(st.integers(0, 2**32).map(Random))
def test_a_line_of_a_private_key_is_taken_out(before: str, width: int, key: Random) -> None:
    """PEM, OpenSSH and PGP write a key as lines of base64, one of these widths."""
    line = b64encode(key.randbytes(57)).decode()[:width]
    assume(any(map(str.isdigit, line)) and not line.startswith("/"))
    assert redact(before + line) == before + "[redacted]"


KEY_LINE = "MHcCAQEEIKIHegxkt93pfct/gLn0inmJ1m7YrMTk3jERwFNnFQAQoAoGCCqGSM49"


@pytest.mark.parametrize(
    "around",
    [
        "{} ",
        "{}\r",
        "'{}'",
        '"{}",',
        "{}\\n",
        "'{}\\n'",
        '"{}\\r\\n",',
        "\ufeff{}",
        "key={} ",
        "\x1b[32m{}\x1b[0m",
        "HF_TOKEN {}",
    ],
)
def test_a_line_of_a_private_key_is_found_in_quotes_and_colours(around: str) -> None:
    """Lists, JSON and terminals put something around it."""
    assert KEY_LINE not in redact(around.format(KEY_LINE))
    assert KEY_LINE[:62] not in redact(around.format(KEY_LINE[:62] + "=="))
    sixteen = around.format(KEY_LINE).encode("utf-16-le").decode("latin-1")
    assert KEY_LINE not in redact(sixteen).replace("\x00", "")


@pytest.mark.parametrize(
    "line",
    [
        "sha256:" + "0123456789abcdef" * 4,
        "0123456789abcdef" * 4,
        "/srv/models/meta/Llama/snapshots/0e9e39f249a16976918f6564b8830bc8",
        "/mnt/NFS/Models/LLM/Qwen3/QwQ32B/Instruct/AWQ/INT4/GPTQ/weights1",
        "=" * 64,
        "A" * 64,
        "/" * 64,
        "aB3/" * 15 + "aB3_",
    ],
)
def test_other_long_words_stay(line: str) -> None:
    """A digest is in hexadecimal digits, a path begins with a slash and has others, and neither is a key."""
    assert redact(line) == line
