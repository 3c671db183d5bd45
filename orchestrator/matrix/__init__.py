"""The sweep matrix: strict YAML in, points with a readable id and a content hash out."""

from orchestrator.matrix.expand import load_matrix
from orchestrator.matrix.point import Accelerator, PodOverlay, Point, Timeouts

__all__ = ["Accelerator", "PodOverlay", "Point", "Timeouts", "load_matrix"]
