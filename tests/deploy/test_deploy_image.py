"""The Dockerfile, as far as it can be checked without building it."""

import re
from fnmatch import fnmatch

from tests.deploy.objects import CHECKOUT, MANIFESTS

DOCKERFILE = (MANIFESTS / "Dockerfile").read_text()
INSTRUCTIONS = re.findall(
    r"^([A-Z]+) +(.*)$", re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)), re.MULTILINE
)
FINAL = INSTRUCTIONS[max(number for number, (word, _) in enumerate(INSTRUCTIONS) if word == "FROM") :]


def test_every_stage_starts_from_one_exact_tag() -> None:
    """The base has a full version and a distribution in its tag; all stages share it."""
    stages = [rest.split()[0] for word, rest in INSTRUCTIONS if word == "FROM"]
    assert stages[1:] == ["base", "base"]
    assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", stages[0])


def test_packages_come_from_the_lock_with_hashes() -> None:
    """One step reaches the index, and checks hashes; every other one has no index."""
    text = DOCKERFILE.replace("\\\n", " ")
    steps = re.findall(r"\bpip\b(?! uninstall).*?\b(?:download|install|wheel)\b.*?(?=&&|$)", text, re.MULTILINE)
    online = [step for step in steps if "--no-index" not in step]
    assert len(steps) >= 4
    assert len(online) == 1
    assert "--require-hashes" in online[0]
    assert "--only-binary=:all:" in online[0]


def test_the_image_ends_as_an_unprivileged_user_and_kprof() -> None:
    """The last stage runs as 65532, starts kprof, and says what it is."""
    assert [rest for word, rest in FINAL if word == "USER"] == ["65532:65532"]
    assert [rest for word, rest in FINAL if word == "ENTRYPOINT"] == ['["kprof"]']
    assert [rest for word, rest in FINAL if word == "COPY"] == ["--from=build /opt/kprof /opt/kprof"]
    labels = next(rest for word, rest in FINAL if word == "LABEL")
    assert {"title", "licenses", "version", "revision"} <= set(
        re.findall(r"org\.opencontainers\.image\.(\w+)=", labels)
    )


def test_what_it_copies_is_there_and_in_the_context() -> None:
    """Each source exists in the checkout, and the ignore file lets it through."""
    allowed = [
        line[1:] for line in (MANIFESTS / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")
    ]
    sources = [
        source for word, rest in INSTRUCTIONS if word == "COPY" and "--from" not in rest for source in rest.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (CHECKOUT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in allowed), source


def test_the_version_is_the_projects() -> None:
    """The label's default is the version in pyproject.toml."""
    version = re.search(r'^version = "(.+)"$', (CHECKOUT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert f"ARG VERSION={version[1]}\n" in DOCKERFILE
