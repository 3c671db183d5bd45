"""The house's rules: which room may import which, and which room owns which door to the outside."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[3] / "orchestrator"

# docs/design.md holds the same table. `errors` and the version are open to every room but the parser.
ROOMS: dict[str, set[str]] = {
    "vllm_log": set(),
    "vllm": set(),
    "matrix": {"vllm", "vllm_log"},
    "memory": {"vllm", "matrix"},
    "cluster": {"matrix", "vllm"},
    "profile": {"cluster", "vllm_log", "vllm", "matrix"},
    "sweep": {"profile", "cluster", "matrix", "memory", "store", "vllm"},
    "store": {"matrix"},
    "report": {"store", "memory"},
    "simulator": {"vllm", "memory"},
    "cli": {"vllm_log", "vllm", "matrix", "memory", "cluster", "profile", "sweep", "store", "report", "simulator"},
}
COMMON = {"errors", "resources", "__version__"}

# Outside effects have one door each: module prefix of ours -> what alone may import the library.
DOORS: dict[str, tuple[str, ...]] = {
    "kubernetes": ("orchestrator.cluster.kubernetes.credentials",),
    "subprocess": ("orchestrator.cluster.local",),
    "aiohttp": ("orchestrator.cluster", "orchestrator.simulator"),
    "sqlalchemy": ("orchestrator.store",),
    "psycopg": ("orchestrator.store",),
    "typer": ("orchestrator.cli",),
    "rich": ("orchestrator.cli", "orchestrator.report"),
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        yield name.removesuffix(".__init__"), ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "orchestrator" and len(parts) > 1 else None


def test_every_room_is_in_the_table() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert rooms - {"data"} == set(ROOMS)


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_rooms_import_only_what_the_table_allows(room: str) -> None:
    allowed = ROOMS[room] | {room} | (COMMON if room != "vllm_log" else set())
    wrong = [
        f"{name} imports {imported}"
        for name, tree in modules()
        if room_of(name) == room
        for imported in imports(tree)
        if (target := room_of(imported)) is not None and target not in allowed
    ]
    assert wrong == []


def test_the_parser_needs_the_standard_library_only() -> None:
    foreign = {
        imported.split(".")[0]
        for name, tree in modules()
        if room_of(name) == "vllm_log"
        for imported in imports(tree)
        if imported.split(".")[0] not in sys.stdlib_module_names | {"orchestrator"}
    }
    assert foreign == set()


def test_the_parser_does_no_input_or_output() -> None:
    touching = {"io", "os", "pathlib", "socket", "subprocess", "urllib", "asyncio", "threading", "tempfile"}
    used = {
        imported.split(".")[0] for name, tree in modules() if room_of(name) == "vllm_log" for imported in imports(tree)
    }
    assert used & touching == set()


@pytest.mark.parametrize("library", sorted(DOORS))
def test_each_outside_effect_has_one_door(library: str) -> None:
    wrong = [
        name
        for name, tree in modules()
        for imported in imports(tree)
        if imported.split(".")[0] == library and not name.startswith(DOORS[library])
    ]
    assert wrong == []


def test_modules_stay_small() -> None:
    large = {name: lines for name, lines in _lengths() if lines > 400}
    assert large == {}


def _lengths() -> Iterator[tuple[str, int]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield str(path.relative_to(PACKAGE)), len(path.read_text(encoding="utf-8").splitlines())
