"""A stand-in for the Python image of the Dockerfile: no registry is needed to build on it.

It has what the Dockerfile asks of its base: this machine's Python at the place where the real image has it, with pip,
venv and the tools that make accounts.
"""

import ensurepip
import shutil
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

from tests.bed.errors import MissingError
from tests.bed.python_layer import PACKAGES, VERSION, add_libraries
from tests.bed.tarball import Layer, write_image

LIBRARY = f"/usr/local/lib/{VERSION}"
LEFT_OUT = {"__pycache__", "site-packages", "test", "tests", "idlelib", "tkinter", "turtledemo"}
TOOLS = ("sh", "rm", "groupadd", "useradd")
ACCOUNTS = {"/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "/etc/group": "root:x:0:\n"}
# What wheels count on and no program above loads: the C library whole, and those of GCC. Every Debian has them.
LIBRARIES = (
    *("libdl.so.2", "libm.so.6", "libnss_dns.so.2", "libnss_files.so.2", "libpthread.so.0", "libresolv.so.2"),
    *("librt.so.1", "libutil.so.1", "libgcc_s.so.1", "libstdc++.so.6"),
)
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# A build reaches the package index through this machine, so it trusts whom this machine trusts.
PIP_SETTINGS = f"[global]\ncert = {CERTIFICATES}\n"


def base_image(target: Path, name: str) -> None:
    """Write the image, as a folder of the OCI layout."""
    with tempfile.TemporaryDirectory() as scratch:
        layer = Path(scratch) / "layer"
        _layer(Path(scratch)).write(layer)
        image = Path(scratch) / "image"
        write_image(image, name, [layer], {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": ["python3"]})
        with tarfile.open(image) as packed:
            packed.extractall(target, filter="data")


def _layer(scratch: Path) -> Layer:
    if not CERTIFICATES.is_file():
        raise MissingError(f"{CERTIFICATES} is missing: install the package ca-certificates")
    layer = Layer()
    for path, text in ACCOUNTS.items():
        layer.add_bytes(path, text.encode())
    layer.add_bytes("/etc/pip.conf", PIP_SETTINGS.encode())
    layer.add_file(str(CERTIFICATES), CERTIFICATES, 0o644)
    layer.add_folder("/tmp", 0o1777)
    interpreter = Path(sys.executable).resolve()
    layer.add_file(f"/usr/local/bin/{VERSION}", interpreter, 0o755)
    for link in ("python3", "python"):
        layer.add_link(f"/usr/local/bin/{link}", VERSION)
    library = Path(sysconfig.get_path("stdlib"))
    for source in sorted(library.rglob("*")):
        if source.is_file() and source.suffix != ".a" and not LEFT_OUT & set(source.relative_to(library).parts):
            layer.add_file(f"{LIBRARY}/{source.relative_to(library)}", source)
    wheels = sorted((Path(ensurepip.__file__).parent / "_bundled").glob("*.whl"))
    if not wheels:
        raise MissingError(f"ensurepip of {interpreter} has no pip in it: use a Python that is not the distribution's")
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as packed:
            for member in packed.namelist():
                layer.add_bytes(f"{PACKAGES}/{member}", packed.read(member))
    programs = [interpreter, *(library / "lib-dynload").glob("*.so")]
    for tool in TOOLS:
        found = shutil.which(tool)
        if found is None:
            raise MissingError(f"{tool} is missing: install the packages dash, coreutils and passwd")
        layer.add_file(f"/usr/bin/{tool}", Path(found).resolve(), 0o755)
        programs.append(Path(found))
    layer.add_link("/bin/sh", "/usr/bin/sh")
    for name in LIBRARIES:
        places = [*Path("/usr/lib").glob(f"*/{name}"), *Path("/usr/lib64").glob(name)]
        if not places:
            raise MissingError(f"{name} is missing: install the packages libc6, libgcc-s1 and libstdc++6")
        layer.add_file(str(places[0]), places[0].resolve(), 0o755)
    add_libraries(layer, programs, library / "lib-dynload", scratch)
    return layer
