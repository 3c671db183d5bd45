"""Values at the store's edge: what one database takes and the other refuses is made fit for both."""

import math
import re
from typing import Any

from sqlalchemy import JSON, Dialect, String, TypeDecorator

MOST = 2**63  # from here on an integer fits neither database
# PostgreSQL refuses NUL in text, and neither database can encode half a surrogate pair.
_UNFIT = re.compile("[\x00\ud800-\udfff]")
_INSTEAD = "\ufffd"


class Words(TypeDecorator[str]):
    """Text of any length; a character that no database can hold is replaced, so that the row is not lost."""

    # No length: SQLite ignores it, PostgreSQL would refuse the row.
    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        """Return the text as both databases can hold it."""
        return None if value is None else _UNFIT.sub(_INSTEAD, value)


class Document(TypeDecorator[Any]):
    """A JSON document; its escapes keep every character, NUL and half surrogates too.

    JSON has no infinity and no NaN, and PostgreSQL refuses them: they become null.
    """

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> Any:
        """Return the document as JSON can say it."""
        return _finite(value)


def count(value: float | None) -> int | None:
    """Return a number as an integer column takes it, None for one that does not fit; the document keeps it."""
    if value is None or not math.isfinite(value) or not -MOST < round(value) < MOST:
        return None
    return round(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
