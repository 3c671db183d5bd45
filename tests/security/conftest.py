"""The API server of tests/faults and the adapter on it, for this folder, too."""

from tests.faults.conftest import cluster, server

__all__ = ["cluster", "server"]
