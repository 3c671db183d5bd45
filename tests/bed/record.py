"""The file that says what a run of the bed has made outside itself, so that any later call can undo it."""

import json
from dataclasses import asdict, dataclass, field

from tests.bed.host import started_at
from tests.bed.layout import Layout


@dataclass
class Record:
    """The folders made on the host, and process 1 of the bed with its namespaces; complete once all is up."""

    folders: list[str]
    pid: int = 0
    started: str = ""
    namespaces: dict[str, str] = field(default_factory=dict)
    gpus: int = -1
    complete: bool = False

    def save(self, where: Layout) -> None:
        """Write the record into the state folder."""
        where.record.write_text(json.dumps(asdict(self)))


def read_record(where: Layout) -> Record | None:
    """Return the record in the state folder, or None if there is none."""
    return Record(**json.loads(where.record.read_text())) if where.record.is_file() else None


def alive(record: Record) -> bool:
    """Say whether process 1 of the recorded bed still runs."""
    return record.pid != 0 and started_at(record.pid) == record.started
