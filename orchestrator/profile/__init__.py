"""The life of one point: create, wait, parse, probe, record, always delete."""
