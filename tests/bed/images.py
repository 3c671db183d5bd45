"""The images of the bed, kept in the cache under a key made of all that goes into them."""

import hashlib
import importlib.util
import re
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.bed.base_image import base_image
from tests.bed.binaries import Binaries
from tests.bed.buildkit import BUILDKIT, build_dockerfile
from tests.bed.errors import BedError, MissingError
from tests.bed.layout import HERE, KPROF_IMAGE, PAUSE_IMAGE, SIMULATOR_IMAGE, Layout
from tests.bed.python_layer import packages_layer, python_layer
from tests.bed.shell import run, step
from tests.bed.tarball import Layer, write_image

RECIPE = ("images.py", "python_layer.py", "tarball.py")
BUILT = ("buildkit.py", "base_image.py")
PACKAGED = ("orchestrator", "manifests", "matrices", "pyproject.toml", "README.md", "LICENSE")
LAUNCHER = """\
#!/usr/local/bin/python3 -P
import runpy

runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""
LAUNCHERS = {
    f"/usr/local/bin/{name}": LAUNCHER.format(module=module)
    for name, module in {"vllm": "orchestrator.simulator", "kprof": "orchestrator.cli"}.items()
}


def pause_image(where: Layout, binaries: Binaries) -> Path:
    """Return the tar file of the pause image, made if the cache lacks it."""
    program = binaries.pause / "pause"

    def make(target: Path) -> None:
        layer = Layer()
        layer.add_file("/pause", program, 0o755)
        layer.write(target.with_suffix(".layer"))
        write_image(target, PAUSE_IMAGE, [target.with_suffix(".layer")], {"Entrypoint": ["/pause"]})

    return _cached(where, "pause", _key(program.parent, [program]), make)


def simulator_image(where: Layout, project: Path) -> Path:
    """Return the tar file of the simulator's image with the project in the given checkout installed."""
    recipe = _key(HERE, [HERE / name for name in RECIPE], sys.version)
    wanted = _requirements(project)
    python = _cached(where, "python", _key(HERE, [], recipe), python_layer)
    libraries = _cached(
        where,
        "packages",
        _key(HERE, [], recipe, *wanted),
        lambda target: _installed(target, ["--only-binary=:all:", *wanted], {}),
    )
    code = _cached(
        where,
        "project",
        _key(project, _files(project), recipe),
        lambda target: _installed(target, ["--no-deps", *_build_options(), str(project)], LAUNCHERS),
    )
    layers = [python, libraries, code]
    settings: dict[str, object] = {
        "Entrypoint": ["vllm", "serve"],
        "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "PYTHONUNBUFFERED=1"],
        "WorkingDir": "/tmp",
    }
    return _cached(
        where,
        "simulator",
        _key(where.cache, layers),
        lambda target: write_image(target, SIMULATOR_IMAGE, layers, settings),
    )


def kprof_image(where: Layout, project: Path) -> Path:
    """Return the tar file of kprof's own image, built from the Dockerfile of the given checkout on a stand-in base."""
    dockerfile = project / "manifests" / "Dockerfile"
    found = re.search(r"^FROM (\S+)", dockerfile.read_text(), re.MULTILINE)
    if found is None:
        raise BedError(f"{dockerfile} has no FROM")
    recipe = _key(HERE, [HERE / name for name in (*RECIPE, *BUILT)], sys.version, BUILDKIT.version)

    def make(target: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            base_image(Path(scratch), found[1])
            build_dockerfile(
                where, project, dockerfile, name=KPROF_IMAGE, base=(found[1], Path(scratch)), target=target
            )

    copied = [*_files(project), project / "requirements.lock", project / "CHANGELOG.md"]
    return _cached(where, "kprof", _key(project, copied, recipe), make)


def _requirements(project: Path) -> list[str]:
    """Return the direct requirements, and pinned ones for all that the lock file knows of."""
    settings = tomllib.loads((project / "pyproject.toml").read_text())
    direct: list[str] = settings["project"].get("dependencies", [])
    lock = project / "requirements.lock"
    if not lock.is_file():
        return direct
    pins = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE))
    names = [re.split(r"[\s<>=!~;\[(]", text, maxsplit=1)[0] for text in direct]
    unpinned = [name for name in names if name.lower() not in pins]
    if unpinned:
        raise BedError(f"requirements.lock has no version of {', '.join(unpinned)}")
    return [*direct, "--constraint", *(f"{name}=={pins[name]}" for name in sorted(pins))]


def _build_options() -> list[str]:
    # With the build backend at hand, pip need not fetch one.
    return ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []


def _installed(target: Path, arguments: list[str], extra: dict[str, str]) -> None:
    if importlib.util.find_spec("pip") is None:
        raise MissingError(f"pip is missing in {sys.executable}: run {sys.executable} -m ensurepip")
    with tempfile.TemporaryDirectory() as scratch:
        if "--constraint" in arguments:
            at = arguments.index("--constraint") + 1
            pins = Path(scratch) / "constraints.txt"
            pins.write_text("\n".join(arguments[at:]))
            arguments = [*arguments[:at], str(pins)]
        folder = Path(scratch) / "packages"
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--quiet",
            "--no-compile",
        ]
        try:
            run([*pip, "--root-user-action=ignore", "--target", folder, *arguments])
        except BedError as error:
            if "NewConnectionError" in str(error) or "NameResolutionError" in str(error):
                raise MissingError(f"the Python package index is out of reach\n{error}") from error
            raise
        packages_layer(target, folder, extra)


def _files(project: Path) -> list[Path]:
    found: list[Path] = []
    for name in PACKAGED:
        top = project / name
        found += [top] if top.is_file() else [path for path in top.rglob("*") if path.is_file()]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def _key(top: Path, files: Iterable[Path], *words: str) -> str:
    total = hashlib.sha256(repr(words).encode())
    for path in files:
        # The place of the checkout does not matter, so that another one finds the same images.
        total.update(f"{path.relative_to(top)}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def _cached(where: Layout, name: str, key: str, make: Callable[[Path], None]) -> Path:
    folder = where.cache / "images"
    target = folder / f"{name}-{key}.tar"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with (
            step(f"make image part {name}"),
            tempfile.TemporaryDirectory(prefix=".making-", dir=folder) as scratch,
        ):
            fresh = Path(scratch) / target.name
            make(fresh)
            # Every change of the code makes a new one, so the older ones go.
            for old in folder.glob(f"{name}-*.tar"):
                old.unlink()
            fresh.rename(target)
    return target
