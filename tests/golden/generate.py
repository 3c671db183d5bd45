"""Writes the golden logs and expected.json; run `python -m tests.golden.generate` after a change of the data."""

import json
from pathlib import Path

from tests.golden.cases import other_devices, start_ups
from tests.golden.catalogue import FOLDER
from tests.golden.failures import catalogue_failures
from tests.golden.third_party import third_party_failures

# Stands before each log in a file of several, followed by the case's name.
SEPARATOR = b"##### case "


def rendered() -> set[str]:
    """Return the ids of all format strings that stand in the complete start-ups."""
    return {said for case in (start_ups() | other_devices()).values() for said in case().said}


def build() -> dict[str, bytes]:
    """Return every golden file by its name below this folder."""
    files: dict[str, bytes] = {}
    expected: dict[str, object] = {}
    for name, case in (start_ups() | other_devices()).items():
        session = case()
        path = f"logs/{name}.log"
        files[path] = session.writer.bytes()
        expected[name] = session.expected(path)
    for name, case in (catalogue_failures() | third_party_failures()).items():
        session = case()
        path = f"logs/{name.partition('@')[0].rpartition('.')[0] or name.partition('@')[0]}.logs"
        files[path] = files.get(path, b"") + SEPARATOR + name.encode() + b"\n" + session.writer.bytes()
        expected[name] = session.expected(path)
    lines = (
        f"{json.dumps(name)}: {json.dumps(case, sort_keys=True, separators=(',', ':'))}"
        for name, case in sorted(expected.items())
    )
    files["expected.json"] = ("{\n" + ",\n".join(lines) + "\n}\n").encode()
    return files


def write(folder: Path = FOLDER) -> None:
    """Write the files and remove logs that no case makes any more."""
    files = build()
    (folder / "logs").mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for path in (folder / "logs").iterdir():
        if f"logs/{path.name}" not in files:
            path.unlink()


if __name__ == "__main__":
    write()
