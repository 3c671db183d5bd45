"""Files that ship beside the code: base manifests and matrices, in a wheel or in a checkout."""

from pathlib import Path


def shipped(folder: str) -> Path:
    """Return the folder `manifests` or `matrices`: inside the installed package, else of the checkout."""
    packaged = Path(__file__).parent / "data" / folder
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / folder
