"""Strict YAML: bounded size and depth, no anchors, no duplicate keys, and a line number for every field."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import UsageError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32

Path_ = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed document: plain data, and the line (from 1) on which each field stands."""

    name: str
    data: Any
    lines: Mapping[Path_, int]

    def where(self, path: Path_) -> str:
        """Return `file:line` of a field, or of the nearest one around it that is written down."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines.get(path, 1)}"


def field_name(path: Path_) -> str:
    """Return a path as people write it: `groups[0].arguments.block-size`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text or "the document"


def read_source(path: Path) -> Source:
    """Read a YAML file; raises UsageError naming file, line and remedy for anything but one plain document."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", remedy="name a matrix file that exists") from error
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{path}: {len(raw)} bytes", remedy=f"a matrix has at most {MAX_BYTES} bytes; split it")
    try:
        return parse_source(raw.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8", remedy="save the file as UTF-8") from error


def parse_source(text: str, name: str) -> Source:
    """Parse YAML text; raises UsageError naming the line and the remedy."""
    _refuse_anchors(text, name)
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            lines: dict[Path_, int] = {}
            data = None if node is None else _build(loader, node, (), lines, name)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _yaml_error(error, name) from error
    except ValueError as error:  # a scalar such as 2024-13-45 that looks like a date
        raise UsageError(f"{name}: {error}", remedy="put the value in quotes") from error
    return Source(name=name, data=data, lines=lines)


def _events(text: str) -> Iterator[yaml.Event]:
    yield from yaml.parse(text, Loader=yaml.SafeLoader)


def _refuse_anchors(text: str, name: str) -> None:
    # Aliases can make a small file expand without bound, and their depth is checked before anything recurses.
    depth = 0
    try:
        for event in _events(text):
            line = 0 if event.start_mark is None else event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise UsageError(f"{name}:{line}: anchors and aliases are not read", remedy="use `defaults:`")
            if getattr(event, "tag", None):
                raise UsageError(f"{name}:{line}: tags such as !!int are not read", remedy="write the plain value")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise UsageError(f"{name}:{line}: nested deeper than {MAX_DEPTH}", remedy="flatten the document")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except yaml.YAMLError as error:
        raise _yaml_error(error, name) from error


def _yaml_error(error: yaml.YAMLError, name: str) -> UsageError:
    mark = getattr(error, "problem_mark", None)
    where = name if mark is None else f"{name}:{mark.line + 1}"
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return UsageError(f"{where}: {problem}", remedy="mend the YAML of this line")


def _build(loader: yaml.SafeLoader, node: yaml.Node, path: Path_, lines: dict[Path_, int], name: str) -> Any:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key == "<<":
                raise UsageError(f"{name}:{line}: keys must be plain words", remedy="write the key as text")
            if key in result:
                raise UsageError(
                    f"{name}:{line}: {field_name((*path, key))} is written twice",
                    remedy=f"the first one stands on line {lines[(*path, key)]}; keep one",
                )
            result[key] = _build(loader, value_node, (*path, key), lines, name)
            lines[(*path, key)] = line
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, item, (*path, index), lines, name) for index, item in enumerate(node.value)]
    value = loader.construct_object(node)
    if value is not None and not isinstance(value, bool | int | float | str):
        raise UsageError(
            f"{name}:{node.start_mark.line + 1}: {field_name(path)} reads as {type(value).__name__}",
            remedy="put the value in quotes",
        )
    return value
