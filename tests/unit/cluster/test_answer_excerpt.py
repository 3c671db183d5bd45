"""What a message tells of an answer that is too long for it."""

import pytest

from orchestrator.cluster.kubernetes.transport import api_error
from orchestrator.vllm_log import redact

PAGE = "<html> 502 of the proxy: no answer from https://kprof:Sup3rSecretPassw0rd@upstream.example.com </html>"


@pytest.mark.parametrize("before", range(100, 185, 7))
def test_an_answer_is_not_cut_within_a_secret(before: int) -> None:
    """Of a word that does not fit nothing is told: half an address with a password looks like none."""
    text = api_error(502, (PAGE.replace("502", "502 " + "x" * before)).encode(), None).message
    assert "xxx" in text
    assert "Sup3r" not in redact(text)


def test_a_short_answer_is_told_whole() -> None:
    """With its last word."""
    assert api_error(502, b"<h1>502 Bad Gateway</h1>", None).message == "<h1>502 Bad Gateway</h1>"
