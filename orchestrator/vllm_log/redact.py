"""Secrets are taken out before a line is kept, shown or stored. Every pattern stays within one line, and is bounded."""

import re

MASK = "[redacted]"
# What the name of a setting that holds a secret ends with; whatever stands before it (VLLM_, HF_, my-) belongs to it.
_NAMES = (
    r"(?:api[_-]?keys?|(?:access|private|storage|account|secret)[_-]?key(?:[_-]?id)?|token|secret|passw(?:or)?d"
    r"|passphrase|db_pass|mysql_pwd|credentials?|cookie)"
)
# Inside a JSON string the quotes have backslashes before them. A quote that is not closed runs to the end.
_QUOTE = r"\\{0,3}['\"]"
_QUOTED = r"(?:'(?:[^'\\\n]|\\.){0,4000}(?:'|$)|\"(?:[^\"\\\n]|\\.){0,4000}(?:\"|$)|\\{1,3}\"[^\"\n]{0,4000}(?:\"|$))"
_VALUE = rf"(?:{_QUOTED}|['\"]?[^\s,;}}\)\]]+)"
_SEPARATOR = rf"(?:{_QUOTE})?[ \t]{{0,20}}[:=][ \t]{{0,20}}"
# A token begins at a word, or behind what another notation wrote for a character: \n, \u0022, %3D.
_START = r"(?:\b|(?<=\\[bfnrt])|(?<=\\u[0-9a-fA-F]{4})|(?<=\\x[0-9a-fA-F]{2})|(?<=%[0-9a-fA-F]{2}))"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # hf_AbCd... (Hugging Face), sk-... (OpenAI style), ghp_... (GitHub), AKIA... (AWS), eyJ... (JWT), nvapi-, gsk_
    # hf_overrides, hf_transfer and other names are words of small letters; a token of 34 such letters is none
    (re.compile(_START + r"(?:hf_|api_org_)(?![a-z]{1,30}(?![A-Za-z0-9]))[A-Za-z0-9]{8,}"), MASK),
    (re.compile(_START + r"[spr]k-[A-Za-z0-9_-]{12,}"), MASK),
    (re.compile(_START + r"(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-|nvapi-|gsk_|AIza)[A-Za-z0-9_-]{10,}"), MASK),
    # dckr_pat_... (Docker), ya29.... (Google), npm_... and r8_... (Replicate); npm_config_ is a name
    (re.compile(_START + r"(?:(?:dckr_[po]at_|ya29\.)[A-Za-z0-9_-]{10,}|(?:npm|r8)_[A-Za-z0-9]{20,})"), MASK),
    (re.compile(_START + r"(?:AKIA|ASIA)[A-Z0-9]{16}\b"), MASK),
    (re.compile(_START + r"eyJ[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_.-]{8,}"), MASK),
    # Authorization: Bearer ..., to the end of its quote or line
    (re.compile(rf"(?i)(authorization{_SEPARATOR}(?:{_QUOTE})?)(?!\[redacted)[^'\"\n,}}]{{1,4000}}"), r"\1" + MASK),
    (re.compile(r"(?i)\b(bearer|basic)[ \t]+(?!\[redacted)[A-Za-z0-9._~+/=-]{6,}"), r"\1 " + MASK),
    # {"auths": {"registry": {"auth": "dXNlcjp4"}}} of Docker; a word or a number is a setting
    (
        re.compile(
            rf"({_QUOTE}auth{_QUOTE}[ \t]{{0,20}}:[ \t]{{0,20}}{_QUOTE})"
            rf"(?![a-z_-]{{1,40}}{_QUOTE})[A-Za-z0-9+/=_-]{{8,}}"
        ),
        r"\1" + MASK,
    ),
    # -----BEGIN RSA PRIVATE KEY-----\nMIIE..., in one line, as JSON holds it
    (re.compile(r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----)(?!\[redacted)[A-Za-z0-9+/=\\ \t]{4,}"), r"\1" + MASK),
    # https://user:password@host, https://token@host; a password may hold / and @
    (re.compile(r"://(?!\[redacted)[^\s'\"]{1,1000}@(?=[\w.\[-])"), "://" + MASK + "@"),
    # https://user:passw, where a long line was cut; http://host:8000 has a port
    (
        re.compile(
            r"(?<!docker)(?<!oci)(?<!ssh)(?<!git)://[^\s'\"/:@\[*]{1,200}:"
            r"(?!\d{1,5}(?:[/?#.,;:)\]}>|\x1b\\-]|$)|port\b|latest\b)[^\s'\"/<{}*:$][^\s'\"]{0,1000}$"
        ),
        "://" + MASK,
    ),
    # ?token=..., &X-Amz-Signature=...
    (
        re.compile(
            r"(?i)([?&][\w-]{0,40}(?:token|key|keyid|sig|signature|credential|secret|password)=)(?!\[redacted)[^&\s'\"]+"
        ),
        r"\1" + MASK,
    ),
    # argument --api-key: invalid parse value: 'x'
    (re.compile(rf"(?i)(--[a-z-]{{0,30}}{_NAMES}: [\w ]{{1,60}}: ?){_VALUE}"), r"\1" + MASK),
    # --api-key x 'y' "z": every word up to the next flag
    (re.compile(rf"(?i)(--[a-z-]{{0,30}}{_NAMES})(?:[ \t=]+(?!-|\[redacted){_VALUE})+"), r"\1 " + MASK),
    # '--api-key', 'x', 'y'
    (
        re.compile(
            rf"(?i)(--[a-z-]{{0,30}}{_NAMES}{_QUOTE},[ \t]{{0,20}})"
            rf"(?:{_QUOTE}(?!-)[^'\"\\\n]{{0,4000}}{_QUOTE}(?:,[ \t]{{0,20}})?){{1,100}}"
        ),
        r"\1" + MASK,
    ),
    # WANDB_API_KEY 0123...
    (re.compile(rf"(?i)({_NAMES}[ \t]{{1,20}})[0-9a-f]{{32,}}(?![\w-])"), r"\1" + MASK),
    # {'name': 'HF_TOKEN', 'value': 'x'}
    (
        re.compile(rf"(?i)({_NAMES}{_QUOTE},[ \t]{{0,20}}{_QUOTE}value{_SEPARATOR})(?!\[redacted){_VALUE}"),
        r"\1" + MASK,
    ),
    # 'api_key': ['a', 'b']  and  api_key=["a"]
    (
        re.compile(rf"(?i)({_NAMES}{_SEPARATOR})[\[(](?:[ \t]{{0,20}}{_QUOTED}[ \t]{{0,20}},?){{1,100}}[\])]?"),
        r"\1" + MASK,
    ),
    (re.compile(rf"(?i)({_NAMES}{_SEPARATOR})[\[(][^\])\n]{{0,4000}}[\])]"), r"\1" + MASK),
    # "api_key": "x", HF_TOKEN: x
    (re.compile(rf"(?i)({_NAMES}{_SEPARATOR})(?!None\b|null\b|True\b|False\b|\[redacted){_VALUE}"), r"\1" + MASK),
)
# What a text with a secret holds, in small letters: looking for words is far faster than any pattern, and most lines
# hold none.
_HINTS = (
    *("hf_", "api_org_", "sk-", "pk-", "rk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox"),
    *("nvapi-", "gsk_", "aiza", "akia", "asia", "eyj", "dckr_", "ya29.", "npm_", "r8_", "auth", "bearer", "basic"),
    *("token", "key", "secret", "pass", "pwd", "credential", "cookie", "sig=", "signature"),
)
_LONGEST_ADDRESS = 1300
# A private key that is printed as its file has it stands on lines of these widths, which may be quoted.
_KEY_WIDTHS = (64, 70, 76)
_KEY_LINE = re.compile(r"(?<![A-Za-z0-9_+/.-])[A-Za-z0-9+/]{62,76}={0,2}(?=(?:\\[rn]){0,2}['\"]?[,;)\]}]{0,2}\s*$)")

_COLOURS = re.compile(r"\x1b\[[0-9;]{0,40}m")


def redact(text: str) -> str:
    """Return the text with keys, tokens, passwords and credentials in URLs replaced by `[redacted]`."""
    if "\n" in text:
        return "\n".join(redact(line) for line in text.split("\n"))
    # A colour glues its last letter to a word, and UTF-16 has NUL bytes between the letters.
    bare = _COLOURS.sub("", text.replace("\x00", "")) if "\x00" in text or "\x1b" in text else text
    worth = _may_hold_a_secret(bare)
    if bare != text and (clean := _clean(bare, worth)) != bare:
        return clean
    return _clean(text, worth)


def _clean(text: str, worth: bool) -> str:
    line = _redacted(text) if worth else text
    if len(line) < _KEY_WIDTHS[0] or " " in line.rstrip()[-_KEY_WIDTHS[0] :]:
        return line
    return _KEY_LINE.sub(lambda found: MASK if _is_key_line(found[0]) else found[0], line)


def _is_key_line(word: str) -> bool:
    """Tell a key's random letters, which are of every kind, from a digest, a path and a long name."""
    kinds = sum(map(str.isupper, word)) >= 8 and sum(map(str.islower, word)) >= 8 and any(map(str.isdigit, word))
    return len(word) in _KEY_WIDTHS and kinds and not (word.startswith("/") and word.count("/") > 2)


def _may_hold_a_secret(text: str) -> bool:
    small = text.lower()
    address = small.rfind("://")
    return any(hint in small for hint in _HINTS) or (
        address >= 0 and ("@" in small or len(small) - address < _LONGEST_ADDRESS)
    )


def _redacted(text: str) -> str:
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_bytes(raw: bytes) -> bytes:
    """Return log bytes redacted line by line; bytes that are not UTF-8 survive unchanged."""
    return redact(raw.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
