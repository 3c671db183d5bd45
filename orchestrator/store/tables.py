"""Tables of the results store; `SCHEMA_VERSION` goes up with every change of them."""

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

SCHEMA_VERSION = 1

metadata = MetaData()

meta = Table(
    "meta", metadata, Column("key", String(64), primary_key=True), Column("value", String(255), nullable=False)
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("matrix", String(64), nullable=False),
    Column("digest", String(32), nullable=False),
    Column("cluster", String(64), nullable=False),
    Column("source", String(16), nullable=False),
    Column("kprof_version", String(32), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("finished_at", String(32)),
)

points = Table(
    "points",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("hash", String(16), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("id", String(128), nullable=False),
    Column("label", String(512), nullable=False),
    Column("model", String(512), nullable=False),
    Column("image", String(512), nullable=False),
    Column("vllm_version", String(64)),
    Column("arguments", JSON, nullable=False),
    Column("accelerator", JSON, nullable=False),
    Column("expect", String(64)),
    ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
    UniqueConstraint("run_id", "id"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("hash", String(16), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("pod", String(64), nullable=False),
    Column("uid", String(64)),
    Column("intended_at", String(32), nullable=False),
    Column("ended", Boolean, nullable=False, default=False),
    ForeignKeyConstraint(["run_id", "hash"], ["points.run_id", "points.hash"], ondelete="CASCADE"),
)

results = Table(
    "results",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("hash", String(16), primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("source", String(16), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("failure_kind", String(64)),
    Column("weights_gib", Float),
    Column("activation_gib", Float),
    Column("non_torch_gib", Float),
    Column("cuda_graph_gib", Float),
    Column("kv_cache_gib", Float),
    Column("kv_cache_tokens", Integer),
    Column("document", JSON, nullable=False),
    Column("recorded_at", String(32), nullable=False),
    ForeignKeyConstraint(["run_id", "hash"], ["points.run_id", "points.hash"], ondelete="CASCADE"),
)

evidence = Table(
    "evidence",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("hash", String(16), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("encoding", String(16), nullable=False),
    Column("size", Integer, nullable=False),
    Column("truncated", Boolean, nullable=False),
    Column("log", LargeBinary, nullable=False),
    ForeignKeyConstraint(["run_id", "hash"], ["points.run_id", "points.hash"], ondelete="CASCADE"),
)
