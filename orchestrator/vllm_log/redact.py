"""Secrets are taken out before a line is kept, shown or stored."""

import re

MASK = "[redacted]"
_NAMES = (  # of settings that hold a secret
    r"(?:[a-z0-9_-]*api[_-]?keys?|hf[_-]?token|hugging_?face_?hub_?token|[a-z0-9_-]*access[_-]?token"
    r"|auth[_-]?token|[a-z0-9_-]*secret(?:[_-]?(?:access[_-]?)?key)?|password|passwd|authorization|ssl[_-]?keyfile[_-]?password)"
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # hf_AbCd... (Hugging Face), sk-... (OpenAI style), ghp_... (GitHub), AKIA... (AWS), eyJ... (JWT)
    (re.compile(r"\b(?:hf_|api_org_)[A-Za-z0-9]{8,}"), MASK),
    (re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{12,}"), MASK),
    (re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-)[A-Za-z0-9_-]{10,}"), MASK),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), MASK),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), MASK),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), r"\1 " + MASK),
    # https://user:password@host
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/:@'\"]*:[^\s/@'\"]+@"), r"\1" + MASK + "@"),
    # ?token=..., &X-Amz-Signature=...
    (re.compile(r"(?i)([?&](?:token|key|api_?key|sig|signature|x-amz-[a-z-]+|access_token)=)[^&\s'\"]+"), r"\1" + MASK),
    # 'api_key': ['a', 'b']  and  api_key=["a"]
    (re.compile(rf"(?i)(['\"]?\b{_NAMES}['\"]?\s*[:=]\s*)[\[(][^\])]*[\])]"), r"\1" + MASK),
    # --api-key=x, --api-key x, "api_key": "x", HF_TOKEN: x
    (
        re.compile(
            rf"(?i)(['\"]?\b{_NAMES}['\"]?\s*[:=]\s*)(?!None\b|null\b|\[redacted)(?:'[^']*'|\"[^\"]*\"|[^\s,;}})\]]+)"
        ),
        r"\1" + MASK,
    ),
    (re.compile(rf"(?i)(--{_NAMES}\s+)(?!-)[^\s'\"]+"), r"\1" + MASK),
)
_HINT = re.compile(
    r"(?i)hf_|api_org|[srp]k-|gh[pousr]_|github_pat|glpat|xox|AKIA|ASIA|eyJ|bearer|basic|://|token|key|secret|passw|auth|sig"
)


def redact(text: str) -> str:
    """Return the text with keys, tokens, passwords and credentials in URLs replaced by `[redacted]`."""
    if not _HINT.search(text):
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_bytes(raw: bytes) -> bytes:
    """Return log bytes redacted line by line; bytes that are not UTF-8 survive unchanged."""
    return redact(raw.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
