"""Results: runs, points, attempts, results and their evidence, in SQLite."""

from orchestrator.store.store import RunDrivenError, RunRecord, Store, StoredPoint, StoredResult, open_store

__all__ = ["RunDrivenError", "RunRecord", "Store", "StoredPoint", "StoredResult", "open_store"]
