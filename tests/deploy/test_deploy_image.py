"""The Dockerfile: what it says, and the image that comes of it."""

import json
import re
import tarfile
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.objects import CHECKOUT, MANIFESTS

DOCKERFILE = (MANIFESTS / "Dockerfile").read_text()
INSTRUCTIONS = re.findall(
    r"^([A-Z]+) +(.*)$", re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)), re.MULTILINE
)
FINAL = INSTRUCTIONS[max(number for number, (word, _) in enumerate(INSTRUCTIONS) if word == "FROM") :]


@dataclass
class Image:
    """A built image: its settings, and the entries of all layers above its base by path."""

    config: dict[str, Any]
    added: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    pulled: int = 0  # bytes of these layers, compressed


@pytest.fixture(scope="module")
def built(image_file: Path) -> Image:
    """Return the image as `docker load` would see it."""
    with tarfile.open(image_file) as packed:

        def document(name: str) -> Any:
            part = packed.extractfile(name)
            assert part is not None
            return json.load(part)

        (manifest,) = document("manifest.json")
        image = Image(document(manifest["Config"])["config"])
        for name in manifest["Layers"][1:]:
            image.pulled += packed.getmember(name).size
            with tarfile.open(fileobj=packed.extractfile(name)) as layer:
                image.added |= {member.name: member for member in layer}
    return image


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


def test_the_built_image_starts_kprof_without_rights(built: Image) -> None:
    """What was built says the same: the user, the command, and what it is."""
    assert built.config["User"] == "65532:65532"
    assert built.config["Entrypoint"] == ["kprof"]
    assert built.config["Labels"]["org.opencontainers.image.title"] == "kprof"
    assert any(path == "opt/kprof/bin/kprof" for path in built.added)


def test_the_built_image_cannot_be_changed_by_its_user(built: Image) -> None:
    """All that the build adds belongs to root, and nobody else may write it."""
    mine = [member for path, member in built.added.items() if path.startswith("opt/") and not member.issym()]
    assert mine
    assert [member.name for member in mine if member.uid or member.gid or member.mode & 0o022] == []


def test_the_built_image_has_no_installer(built: Image) -> None:
    """No pip is added, and the base's own is taken away."""
    packages = {path.split("site-packages/", 1)[1].split("/")[0] for path in built.added if "site-packages/" in path}
    assert {
        "orchestrator",
        "kprof-" + built.config["Labels"]["org.opencontainers.image.version"] + ".dist-info",
    } <= packages
    assert ".wh.pip" in packages
    assert not packages & {"pip", "setuptools", "wheel", "hatchling", "pytest", "mypy", "ruff"}


def test_the_built_image_is_small(built: Image) -> None:
    """Beside its base it holds little more than the generated client library and SQLAlchemy."""
    size = sum(member.size for member in built.added.values())
    print(f"\nthe image adds {size / 2**20:.0f} MiB to its base, {built.pulled / 2**20:.0f} MiB to pull")
    assert size < 150 * 2**20
