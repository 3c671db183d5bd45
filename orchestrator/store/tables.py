"""Tables of the results store; `SCHEMA_VERSION` goes up with every change of them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    UniqueConstraint,
)

from orchestrator.store.values import Document, Words

SCHEMA_VERSION = 1

metadata = MetaData()

meta = Table("meta", metadata, Column("key", Words, primary_key=True), Column("value", Words, nullable=False))

runs = Table(
    "runs",
    metadata,
    Column("id", Words, primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("matrix", Words, nullable=False),
    Column("digest", Words, nullable=False),
    Column("cluster", Words, nullable=False),
    Column("source", Words, nullable=False),
    Column("kprof_version", Words, nullable=False),
    Column("created_at", Words, nullable=False),
    Column("finished_at", Words),
)

points = Table(
    "points",
    metadata,
    Column("run_id", Words, primary_key=True),
    Column("hash", Words, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("id", Words, nullable=False),
    Column("label", Words, nullable=False),
    Column("model", Words, nullable=False),
    Column("image", Words, nullable=False),
    Column("vllm_version", Words),
    Column("arguments", Document, nullable=False),
    Column("accelerator", Document, nullable=False),
    Column("expect", Words),
    ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE"),
    UniqueConstraint("run_id", "id"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("run_id", Words, primary_key=True),
    Column("hash", Words, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("pod", Words, nullable=False),
    Column("uid", Words),
    Column("intended_at", Words, nullable=False),
    Column("ended", Boolean, nullable=False, default=False),
    ForeignKeyConstraint(["run_id", "hash"], ["points.run_id", "points.hash"], ondelete="CASCADE"),
)

results = Table(
    "results",
    metadata,
    Column("run_id", Words, primary_key=True),
    Column("hash", Words, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("source", Words, nullable=False),
    Column("outcome", Words, nullable=False),
    Column("failure_kind", Words),
    Column("weights_gib", Float),
    Column("activation_gib", Float),
    Column("non_torch_gib", Float),
    Column("cuda_graph_gib", Float),
    Column("kv_cache_gib", Float),
    Column("kv_cache_tokens", BigInteger),
    Column("document", Document, nullable=False),
    Column("recorded_at", Words, nullable=False),
    ForeignKeyConstraint(["run_id", "hash"], ["points.run_id", "points.hash"], ondelete="CASCADE"),
)

evidence = Table(
    "evidence",
    metadata,
    Column("run_id", Words, primary_key=True),
    Column("hash", Words, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("encoding", Words, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("truncated", Boolean, nullable=False),
    Column("log", LargeBinary, nullable=False),
    ForeignKeyConstraint(["run_id", "hash"], ["points.run_id", "points.hash"], ondelete="CASCADE"),
)
