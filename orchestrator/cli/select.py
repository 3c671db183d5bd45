"""Selecting points of a matrix by their ids."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from orchestrator.errors import NothingSelectedError
from orchestrator.matrix.expand import LoadedMatrix, load_matrix
from orchestrator.matrix.point import Point


def load_selected(path: Path, only: Sequence[str]) -> tuple[LoadedMatrix, list[Point]]:
    """Load a matrix and the points whose id matches any glob; raises NothingSelectedError when none does."""
    matrix = load_matrix(path)
    if not only:
        return matrix, list(matrix.points)
    chosen = [point for point in matrix.points if any(fnmatchcase(point.id, glob) for glob in only)]
    if not chosen:
        ids = ", ".join(point.id for point in matrix.points[:20])
        raise NothingSelectedError(f"--only {' '.join(only)} matches no point of {path}", remedy=f"points: {ids}")
    return matrix, chosen
