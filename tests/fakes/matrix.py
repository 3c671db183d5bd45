"""Matrices and points written the way a user writes them: as YAML, through the loader."""

import tempfile
from pathlib import Path
from typing import Any

import yaml

from orchestrator.matrix import load_matrix
from orchestrator.matrix.expand import LoadedMatrix
from orchestrator.matrix.point import Point

IMAGE = "vllm/vllm-openai:v0.11.0"
FILE = "sweep.yaml"


def load_text(content: str | bytes) -> LoadedMatrix:
    """Load a matrix from the text or bytes of a file called `sweep.yaml`."""
    raw = content.encode() if isinstance(content, str) else content
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        path.write_bytes(raw)
        return load_matrix(path)


def group(name: str = "a", model: Any = "org/model", **fields: Any) -> dict[str, Any]:
    """Return one group of a matrix."""
    return {"name": name, "model": model, **fields}


def document(*groups: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """Return a matrix document with these groups and defaults."""
    return {"version": 1, "name": "m", "defaults": {"image": IMAGE} | defaults, "groups": list(groups)}


def load(*groups: dict[str, Any], **defaults: Any) -> LoadedMatrix:
    """Load a matrix of these groups and defaults."""
    return load_text(yaml.safe_dump(document(*groups, **defaults), sort_keys=False))


def points(*groups: dict[str, Any], **defaults: Any) -> list[Point]:
    """Return the points of a matrix of these groups and defaults."""
    return list(load(*groups, **defaults).points)


def point(model: str = "org/model", **fields: Any) -> Point:
    """Return the only point of a matrix of one group."""
    (only,) = points(group(model=model, **fields))
    return only
