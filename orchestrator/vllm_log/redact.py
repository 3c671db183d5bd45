"""Secrets are taken out before a line is kept, shown or stored. Every pattern stays within one line, and is bounded."""

import re

MASK = "[redacted]"
# Names of settings that hold a secret; whatever stands before them (VLLM_, OPENAI_, hf-) belongs to the name.
_NAMES = (
    r"(?:api[_-]?keys?|(?:hf|hub|access|auth|session|bearer)[_-]?token|secret(?:[_-]?access)?(?:[_-]?key)?"
    r"|password|passwd|authorization)"
)
# Inside a JSON string the quotes have backslashes before them.
_VALUE = r"(?:'[^'\n]{0,4000}'|\"[^\"\n]{0,4000}\"|\\{1,3}\"[^\"\n]{0,4000}\"|['\"]?[^\s,;}\)\]]+)"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # hf_AbCd... (Hugging Face), sk-... (OpenAI style), ghp_... (GitHub), AKIA... (AWS), eyJ... (JWT)
    (re.compile(r"\b(?:hf_|api_org_)[A-Za-z0-9]{8,}"), MASK),
    (re.compile(r"\b[spr]k-[A-Za-z0-9_-]{12,}"), MASK),
    (re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-)[A-Za-z0-9_-]{10,}"), MASK),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), MASK),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_.-]{8,}"), MASK),
    (re.compile(r"(?i)\b(bearer|basic)[ \t]+(?!\[redacted)[A-Za-z0-9._~+/=-]{6,}"), r"\1 " + MASK),
    # https://user:password@host, https://token@host
    (re.compile(r"://(?!\[redacted)[^\s/@'\"]{1,1000}@"), "://" + MASK + "@"),
    # ?token=..., &X-Amz-Signature=...
    (
        re.compile(r"(?i)([?&](?:token|key|api_?key|sig|signature|x-amz-[a-z-]{1,40}|access_token)=)[^&\s'\"]+"),
        r"\1" + MASK,
    ),
    # --api-key x 'y' "z": every word up to the next flag
    (re.compile(rf"(?i)(--[a-z-]{{0,30}}{_NAMES})(?:[ \t=]+(?!-|\[redacted){_VALUE})+"), r"\1 " + MASK),
    # '--api-key', 'x'
    (re.compile(rf"(?i)(--[a-z-]{{0,30}}{_NAMES}['\"],[ \t]*)(?!\[redacted){_VALUE}"), r"\1" + MASK),
    # 'api_key': ['a', 'b']  and  api_key=["a"]
    (re.compile(rf"(?i)({_NAMES}(?:\\{{0,3}}['\"])?[ \t]*[:=][ \t]*)[\[(][^\])\n]{{0,4000}}[\])]"), r"\1" + MASK),
    # "api_key": "x", HF_TOKEN: x
    (
        re.compile(rf"(?i)({_NAMES}(?:\\{{0,3}}['\"])?[ \t]*[:=][ \t]*)(?!None\b|null\b|\[redacted){_VALUE}"),
        r"\1" + MASK,
    ),
)
_HINT = re.compile(
    r"hf_|api_org|[spr]k-|gh[pousr]_|github_pat|glpat|xox|AKIA|ASIA|eyJ|://[^\s/]{1,1000}@|(?i:bearer|basic|token|key|"
    r"secret|passw|authorization|[?&]sig|x-amz)"
)


def redact(text: str) -> str:
    """Return the text with keys, tokens, passwords and credentials in URLs replaced by `[redacted]`."""
    if "\n" in text:
        return "\n".join(redact(line) for line in text.split("\n"))
    if not _HINT.search(text):
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_bytes(raw: bytes) -> bytes:
    """Return log bytes redacted line by line; bytes that are not UTF-8 survive unchanged."""
    return redact(raw.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
