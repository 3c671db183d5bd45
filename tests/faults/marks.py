"""Finds every test with the mark `fault` in the source, without importing anything."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
# A test that asks for one of these runs on the test bed.
BED_FIXTURES = frozenset({"kube", "namespace", "cluster_kprof", "cluster_sweep", "bed"})
BED_FOLDERS = frozenset({"bedfaults", "kill", "kueue"})


@dataclass(frozen=True, slots=True)
class FaultTest:
    """One test of one fault; `expected_to_fail` says that the product does not react so yet."""

    number: int
    reaction: str
    id: str
    where: str
    sentence: str
    expected_to_fail: bool


def fault_tests(checkout: Path = CHECKOUT) -> list[FaultTest]:
    """Return the marked tests of all suites, by file and line."""
    found: list[FaultTest] = []
    for path in sorted((checkout / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "mark.fault" in text:
            found += _of_module(path.relative_to(checkout), ast.parse(text, str(path)))
    return found


def _of_module(path: Path, module: ast.Module) -> Iterator[FaultTest]:
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                yield from _of_function(path, inner, f"{node.name}::")
        else:
            yield from _of_function(path, node, "")


def _of_function(path: Path, node: ast.stmt, prefix: str) -> Iterator[FaultTest]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    marks = {name: call for name, call in map(_mark, node.decorator_list) if name in {"xfail", "skip"}}
    sentence = " ".join((ast.get_docstring(node) or "").partition("\n")[0].split())
    arguments = {argument.arg for argument in node.args.args}
    for decorator in node.decorator_list:
        name, call = _mark(decorator)
        if name != "fault" or call is None:
            continue
        values = [*call.args, *(keyword.value for keyword in call.keywords)]
        number, reaction = (*(ast.literal_eval(value) for value in values), "")[:2]
        where = _where(path, arguments)
        yield FaultTest(number, reaction, f"{path.as_posix()}::{prefix}{node.name}", where, sentence, bool(marks))


def _mark(decorator: ast.expr) -> tuple[str, ast.Call | None]:
    """Return name and call of `pytest.mark.NAME(...)`; an empty name for any other decorator."""
    call = decorator if isinstance(decorator, ast.Call) else None
    target = call.func if call is not None else decorator
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Attribute) and target.value.attr == "mark":
        return target.attr, call
    return "", call


def _where(path: Path, arguments: set[str]) -> str:
    folder = path.parts[1]
    if folder == "faults":
        return "fault server"
    if folder in {"unit", "golden"}:
        return "unit"
    if arguments & BED_FIXTURES or folder in BED_FOLDERS:
        return "test bed"
    return "test bed and this machine" if "subject" in arguments else "this machine"
