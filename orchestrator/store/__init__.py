"""Results: runs, points, attempts, results and their evidence, in SQLite."""

from orchestrator.store.store import RunRecord, Store, StoredPoint, StoredResult, open_store

__all__ = ["RunRecord", "Store", "StoredPoint", "StoredResult", "open_store"]
