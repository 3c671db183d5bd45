"""Secrets in the shapes in which programs print them, each with a canary of its own, so that a leak has a name."""

import base64
import hashlib
from dataclasses import dataclass

PART_BYTES = 16 * 1024  # container runtimes cut a long line into parts of this size


def canary(kind: str, *names: str) -> str:
    """Return a secret that nothing else looks like: `hf_...`, `sk-...`, or `word`, which only its place gives away."""
    digest = hashlib.sha256("/".join(names).encode()).hexdigest()[:28]
    return {"hf": f"hf_{digest}", "sk": f"sk-{digest}", "word": f"Zq{digest}"}[kind]


@dataclass(frozen=True)
class Shape:
    """One way to say a secret, for which `%` stands; `~` stands for a real percent sign."""

    name: str
    kind: str
    text: str

    def canary(self, place: str) -> str:
        """Return the secret that this shape says in one place."""
        return canary(self.kind, place, self.name)

    def said(self, place: str) -> str:
        """Return the text with its secret."""
        return self.text.replace("%", self.canary(place)).replace("~", "%")


SHAPES = (
    Shape("bare", "hf", "a bare % in a sentence"),
    Shape("bare key", "sk", "Incorrect API key provided: %."),
    Shape("variable", "word", "HF_TOKEN=%"),
    Shape("bearer", "word", "GET /x with Authorization: Bearer %"),
    Shape("header", "word", "headers={'authorization': 'Bearer %', 'accept': '*/*'}"),
    Shape("user of a URL", "word", "cannot reach https://user:%@registry.example/v2/"),
    Shape("query of a URL", "word", "GET https://hub.example/api?a=b&token=%&c=d"),
    Shape("flag", "word", "vllm serve m --api-key % --port 8000"),
    Shape("list of flags", "word", "['serve', 'm', '--api-key', '%', '--port', '8000']"),
    Shape("argument", "word", "non-default args: {'api_key': ['%'], 'port': 8000}"),
    Shape("JSON", "word", '{"level": "error", "message": "login failed", "api_key": "%"}'),
    Shape("JSON in JSON", "word", r'{"log": "{\"message\": \"login\", \"hf_token\": \"%\"}\n"}'),
    Shape("line feed of JSON", "hf", r'{"message": "401 for\n%\nin hub.py"}'),
    Shape("quote of JSON", "sk", r'{"message": "key \u0022%\u0022 is wrong"}'),
    Shape("quoted in a URL", "hf", "GET https://hub.example/login?next=q~3D%"),
    Shape("traceback", "hf", "huggingface_hub.errors.HfHubHTTPError: 401 Client Error: token % is not valid"),
    Shape("object of Kubernetes", "word", "[{'name': 'HF_TOKEN', 'value': '%'}]"),
    Shape("coloured", "hf", "token \x1b[32m%\x1b[0m is not valid"),
    Shape("coloured variable", "word", "\x1b[1mHF_TOKEN\x1b[0m=\x1b[36m%\x1b[0m"),
    Shape("across two parts", "hf", "x" * (PART_BYTES - 9) + " %"),
    Shape("end of a long line", "sk", "y" * 50_000 + " %"),
)


def said_in(place: str) -> str:
    """Return all shapes as one says them in one place, a line for each."""
    return "\n".join(shape.said(place) for shape in SHAPES)


def forms(secret: str) -> tuple[bytes, ...]:
    """Return the bytes by which a secret is found: as text, as UTF-16, and encoded as a Secret's data is."""
    raw = secret.encode()
    return raw, secret.encode("utf-16-le"), base64.b64encode(raw).rstrip(b"=")[:-1]
