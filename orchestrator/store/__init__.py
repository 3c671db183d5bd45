"""Results: runs, points, attempts, results and their evidence, in SQLite or PostgreSQL."""

from orchestrator.store.database import StoreError
from orchestrator.store.open import open_store
from orchestrator.store.records import RunRecord, StoredPoint, StoredResult
from orchestrator.store.store import Store

__all__ = ["RunRecord", "Store", "StoreError", "StoredPoint", "StoredResult", "open_store"]
