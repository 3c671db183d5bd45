"""The beginning of an answer, short enough for a message."""

import re

_LAST_WORD = re.compile(r"\S*\Z")


def excerpt(data: bytes, most_bytes: int) -> str:
    """Return the first bytes as text, without the word that was cut through: half a secret cannot be told as one."""
    text = data[:most_bytes].decode("utf-8", "replace")
    return text if len(data) <= most_bytes else _LAST_WORD.sub("...", text, count=1)
