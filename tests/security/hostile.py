"""Text that drives a terminal, hides or reorders words, or means something to a library; and what finds it."""

import re
import unicodedata
from collections.abc import Mapping

from hypothesis import strategies as st

HOSTILE: Mapping[str, str] = {
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;http://evil.example\x1b\\here\x1b]8;;\x1b\\",
    "clipboard": "\x1b]52;c;b3duZWQ=\x07",
    "clear": "\x1b[2J\x1b[1;1H",
    "colour": "\x1b[38;5;201m",
    "reset": "\x1bc",
    "report": "\x1b[6n",
    "device control": "\x1bP$q\x1b\\",
    "C1 sequence": "\x9b2J",
    "C1 title": "\x9d0;owned\x9c",
    "next line of C1": "a\x85b",
    "bidi override": "\u202egnp.exe\u202c",
    "bidi isolate": "\u2066\u2067x\u2069",
    "bidi mark": "\u200e\u200f\u061c",
    "zero width": "pass\u200bword\u200d\u2060\ufeff",
    "soft hyphen": "a\u00adb",
    "tags": "\U000e0041\U000e007f",
    "NUL": "a\x00b",
    "backspace": "safe\x08\x08\x08\x08evil",
    "carriage return": "safe\revil",
    "bell": "\x07",
    "delete": "\x7f",
    "vertical": "a\x0bb\x0cc",
    "line separators": "a\u2028b\u2029c",
    "bytes that are no text": "\udc9b2J\udcff",
    "markup": "[red]x[/red] [/nothing] [bold",
    "link of markup": "[link=http://evil.example]x[/link]",
    "emoji": ":bomb:",
}
LONG = "z" * 1_000_000 + "\x1b[2J"
# What a line of a few words shows of it all.
SHORT = "\x1b]0;o\x07\x1b[2J\x9b2J\u202e\u2066\u200b\x00\x08\r\x7f\u2028\u00ad[red]x[/red] [/nothing]"
# What kprof's own tables say to a terminal: plain colours, and for the live view a line erased, a line up, the cursor.
_OWN = re.compile(r"\r(?=\n|\x1b\[(?:2K|1A))|\x1b\[(?:(?:[0-3]|3[1-69])(?:;3[1-6])?m|2K|\d{1,3}A|\?25[lh])")
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def line(*, text_only: bool = False) -> str:
    """Return everything hostile in one line; `text_only` leaves out what JSON cannot carry."""
    whole = " ".join(HOSTILE.values())
    return whole.encode("utf-8", "ignore").decode() if text_only else whole


def unsafe(output: bytes) -> list[str]:
    """Return every character that a terminal or a reader must not get; broken UTF-8 counts as well."""
    text = _OWN.sub("", output.decode("utf-8", "surrogateescape"))
    return [ascii(letter) for letter in text if letter not in "\n\t" and unicodedata.category(letter) in _UNSAFE]


texts = st.lists(
    st.sampled_from([value.encode("utf-8", "replace").decode() for value in HOSTILE.values()])
    | st.text(st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Ll", "Zs", "Ps", "Pe", "So"]), max_size=8)
    | st.sampled_from(["\n", "|", "[", "]", "\\", "=1+1", "<b>", "`"]),
    max_size=12,
).map("".join)
