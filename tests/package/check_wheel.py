"""Build the wheel and use what is in it: the command must work without the checkout around it."""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
NEEDED = ("orchestrator/data/manifests/pod.yaml", "orchestrator/data/matrices/h100.yaml", "orchestrator/py.typed")


def main() -> None:
    """Exit with 1 and a sentence when the wheel lacks something."""
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
        subprocess.run(build, cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)
        wheel = next(Path(folder).glob("*.whl"))
        site = Path(folder) / "site"
        with zipfile.ZipFile(wheel) as archive:
            missing = [name for name in NEEDED if name not in archive.namelist()]
            archive.extractall(site)
        if missing:
            sys.exit(f"{wheel.name} lacks {', '.join(missing)}")
        matrix = site / "orchestrator/data/matrices/h100.yaml"
        # The interpreter's own site-packages give the dependencies; the wheel's folder comes first.
        command = [sys.executable, "-m", "orchestrator.cli", "render", str(matrix)]
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0 or done.stdout.count("kind: Pod") != 11:
            sys.exit(f"kprof render from {wheel.name} failed:\n{done.stderr}")
        print(f"{wheel.name}: {wheel.stat().st_size // 1024} KiB, render works")


if __name__ == "__main__":
    main()
