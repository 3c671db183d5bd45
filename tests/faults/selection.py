"""Label and field selectors, as far as kprof uses them."""

import re
from collections.abc import Callable

from tests.faults.statuses import Object

_TERM = re.compile(r"^\s*([^=!\s]+)\s*(?:(!=|==?)\s*(.*?))?\s*$")


def matches(item: Object, labels: str, fields: str) -> bool:
    """Say whether an object is selected; an empty selector selects everything."""
    own = (item.get("metadata") or {}).get("labels") or {}
    return _all(labels, own.get) and _all(fields, lambda path: _field(item, path))


def _all(selector: str, value: Callable[[str], str | None]) -> bool:
    for term in filter(None, selector.split(",")):
        found = _TERM.match(term)
        assert found is not None, f"this server does not know the selector {selector!r}"
        name, operator, wanted = found.groups()
        actual = value(name)
        if operator is None and actual is None:
            return False
        if operator == "!=" and actual == wanted:
            return False
        if operator in {"=", "=="} and actual != wanted:
            return False
    return True


def _field(item: Object, path: str) -> str:
    found: object = item
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return "" if found is None else str(found)
