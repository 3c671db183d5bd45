"""The layers of the simulator's image: the running Python with what it needs, and packages compiled for it."""

import re
import shutil
import sys
import sysconfig
from importlib.util import cache_from_source
from pathlib import Path
from py_compile import PycInvalidationMode
from py_compile import compile as compile_file
from tempfile import TemporaryDirectory

from tests.bed.errors import MissingError
from tests.bed.shell import run
from tests.bed.tarball import Layer

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
LIBRARY = f"/usr/local/lib/{VERSION}"
PACKAGES = f"{LIBRARY}/site-packages"
LEFT_OUT = {
    "__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "idle_test", "tkinter", "turtledemo",
    "ensurepip", "lib2to3", "pydoc_data", "bin",
}  # fmt: skip
LEFT_OUT_NAMES = re.compile(r"config-\d.*|_tkinter.*|_(ctypes_)?test.*\.so|_xx.*\.so|.*\.a|.*\.exe|.*\.pyc|turtle\.py")
# Thousands of generated files with more documentation than code: of these only the byte code is kept.
GENERATED = (f"{PACKAGES}/kubernetes/client/", f"{PACKAGES}/kubernetes/aio/client/")
# What a person or a test wants to run inside a container, where the host has it.
TOOLS = ("sh", "cat", "ls", "sleep", "env")
ACCOUNTS = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nkprof:x:65532:65532:kprof:/tmp:/bin/sh\n",
    "/etc/group": "root:x:0:\nkprof:x:65532:\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def python_layer(target: Path) -> None:
    """Write the layer of the interpreter, its library, the shared libraries and a shell."""
    layer = Layer()
    for path, text in ACCOUNTS.items():
        layer.add_bytes(path, text.encode())
    layer.add_folder("/tmp", 0o1777)  # a path of the image, not of this machine
    layer.add_folder("/root", 0o700)
    interpreter = Path(sys.executable).resolve()
    programs = [interpreter]
    layer.add_file(f"/usr/local/bin/{VERSION}", interpreter, 0o755)
    for name in ("python3", "python"):
        layer.add_link(f"/usr/local/bin/{name}", VERSION)
    # Debian's own Python looks for packages under another name.
    layer.add_link(f"{LIBRARY}/dist-packages", "site-packages")
    for tool in TOOLS:
        found = shutil.which(tool)
        if found:
            layer.add_file(f"/bin/{tool}", Path(found).resolve())
            programs.append(Path(found))
    # Not "platstdlib", which inside a virtual environment is the environment's own folder.
    library = Path(sysconfig.get_path("stdlib"))
    extensions = library / "lib-dynload"
    programs += [path for path in extensions.glob("*.so") if _wanted(path)]
    with TemporaryDirectory() as scratch:
        add_tree(layer, LIBRARY, library, Path(scratch))
        add_libraries(layer, programs, extensions, Path(scratch))
        layer.write(target)


def packages_layer(target: Path, folder: Path, extra: dict[str, str]) -> None:
    """Write a layer of installed packages, with the libraries they want, and extra executable text files."""
    layer = Layer()
    for path, text in extra.items():
        layer.add_bytes(path, text.encode(), 0o755)
    with TemporaryDirectory() as scratch:
        add_tree(layer, PACKAGES, folder, Path(scratch))
        add_libraries(layer, list(folder.rglob("*.so")), folder, Path(scratch))
        layer.write(target)


def add_tree(layer: Layer, path: str, folder: Path, scratch: Path) -> None:
    """Add a folder of Python files with their byte code, so that a read-only container starts fast."""
    for source in sorted(folder.iterdir()):
        inner = f"{path}/{source.name}"
        if not _wanted(source):
            continue
        if source.is_dir():
            add_tree(layer, inner, source, scratch)
        elif source.suffix == ".so":
            _add_binary(layer, inner, source, scratch)
        elif source.suffix == ".py":
            _add_module(layer, inner, source, scratch)
        else:
            layer.add_file(inner, source)


def _wanted(path: Path) -> bool:
    return path.name not in LEFT_OUT and not LEFT_OUT_NAMES.fullmatch(path.name)


def _add_module(layer: Layer, inner: str, source: Path, scratch: Path) -> None:
    generated = inner.startswith(GENERATED)
    compiled = scratch / "compiled.pyc"
    # Unchecked, because a layer does not keep the file times that Python would compare.
    how = PycInvalidationMode.UNCHECKED_HASH
    optimize = 2 if generated else 0
    if not compile_file(str(source), str(compiled), inner, quiet=2, invalidation_mode=how, optimize=optimize):
        layer.add_file(inner, source)
        return
    layer.add_bytes(inner + "c" if generated else cache_from_source(inner), compiled.read_bytes())
    if not generated:
        layer.add_file(inner, source)


def _add_binary(layer: Layer, inner: str, source: Path, scratch: Path) -> None:
    stripped = scratch / inner.replace("/", "_")
    if shutil.which("strip"):
        run(["strip", "--strip-unneeded", "-o", stripped, source])
    layer.add_file(inner, stripped if stripped.exists() else source, 0o755)


def add_libraries(layer: Layer, programs: list[Path], folder: Path, scratch: Path) -> None:
    """Add the shared libraries outside folder that the programs load, all in the folder of the C library."""
    if shutil.which("ldd") is None:
        raise MissingError("ldd is missing: install the package libc-bin")
    found: dict[str, Path] = {}
    for start in range(0, len(programs), 50):
        listing = run(["ldd", *programs[start : start + 50]])
        found |= {
            Path(name).name: Path(path) for name, path in re.findall(r"^\s+(\S+) => (/\S+)", listing, re.MULTILINE)
        }
        for loader in re.findall(r"^\s+(/\S*ld-\S+) \(", listing, re.MULTILINE):
            layer.add_file(loader, Path(loader).resolve(), 0o755)
    standard = found.get("libc.so.6")
    if standard is None:
        return
    for name, path in found.items():
        # One that lies inside is copied with its folder and found by its own relative search path.
        if not path.is_relative_to(folder):
            _add_binary(layer, f"{standard.parent}/{name}", path.resolve(), scratch)
