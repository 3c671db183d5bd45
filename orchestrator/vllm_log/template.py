"""Wordings as templates: the line as vLLM prints it, with `{name}` where a figure stands.

    "Model loading took {weights_gib} GiB memory and {model_load_seconds} seconds"

`{name}` reads a number into a fact, `{}` a number that is not kept, `{name:unit}` a number and its unit (bytes, MiB,
GiB ...; the fact is then in GiB), `{w}` one word, `{*}` anything short. The longest literal piece is the needle by
which the line is found. A blank before a unit may be missing, as it is in many of vLLM's lines.
"""

import math
import re
from dataclasses import dataclass

N = r"(-?(?:\d{1,3}(?:,\d{3}){1,7}(?:\.\d{1,24})?|\d{0,24}\.?\d{1,24}))"
_SIZE_UNIT = r"(bytes|[KMGT]i?B|B)"
# vLLM prints MB and GB for 2**20 and 2**30 bytes wherever a figure of a start-up carries them.
UNIT_GIB = {
    "bytes": 2**-30,
    "B": 2**-30,
    "KiB": 2**-20,
    "KB": 2**-20,
    "MiB": 2**-10,
    "MB": 2**-10,
    "GiB": 1.0,
    "GB": 1.0,
    "TiB": 1024.0,
    "TB": 1024.0,
}
_PLACE = re.compile(r"\{([^{}]*)\}")
_UNIT_WORD = re.compile(r"^ ?(?=(?:[KMGT]i?B|s|secs|seconds|bytes|G)\b)")
MOST = 1e18  # more than any memory has bytes; a damaged log may say anything


def number(text: str) -> float | None:
    """Read a printed number, thousands separators dropped; None for digits that make no sense as one."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < MOST else None


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template: `needle` must be in the line, `pattern` reads it, `names` are the facts of its groups.

    A name ending in `:unit` owns two groups, the number and its unit.
    """

    text: str
    needle: str
    pattern: re.Pattern[str]
    names: tuple[str, ...]

    def read(self, text: str) -> list[tuple[str, float, int]]:
        """Return name, value and place of every figure in `text`, in order; a figure without sense is left out."""
        return [figure for match in self.pattern.finditer(text) for figure in self.values(match)]

    def values(self, match: re.Match[str]) -> list[tuple[str, float, int]]:
        """Return name, value and place of the figures of one match; the name is empty for one that is not kept."""
        found = []
        group = 1
        for name in self.names:
            value = number(match.group(group))
            place = match.start(group)
            plain, _, unit = name.partition(":")
            if unit:
                group += 1
                value = None if value is None else value * UNIT_GIB[match.group(group)]
            group += 1
            if value is not None:
                found.append((plain, value, place))
        return found


def compile_template(text: str, *, needle: str | None = None, before: str = "", after: str = "") -> Template:
    """Compile a template; `before` and `after` are regular expressions that must hold around it."""
    pieces = _PLACE.split(text)
    pattern, names = [before], []
    for index, piece in enumerate(pieces):
        if index % 2 == 0:
            unit = _UNIT_WORD.match(piece) if index else None
            pattern.append((" ?" + re.escape(piece[unit.end() :])) if unit else re.escape(piece))
        elif piece == "*":
            pattern.append(r".{0,200}?")
        elif piece == "w":
            pattern.append(r"\S{1,200}")
        else:
            pattern.append(N + (" ?" + _SIZE_UNIT if piece.endswith(":unit") else ""))
            names.append(piece)
    literals = [piece.strip() for piece in pieces[::2]]
    longest = needle or max(literals, key=len)
    return Template(text, longest, re.compile("".join(pattern) + after), tuple(names))
