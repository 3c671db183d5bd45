"""Which lines are worth reading: most of a DEBUG log is not, and is passed over unread.

Few plain texts, the anchors, are looked for over whole blocks of bytes; only a line with an anchor is looked at, and
only the rules that belong to it are tried. Anchors that share a rare byte share one pass, which jumps from one such
byte to the next; the others have a pass each.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

R = TypeVar("R")
B = TypeVar("B")

# Bytes that are rare in logs and shared by many anchors, in the order in which anchors take them. Chosen by
# measuring: a pass costs about as much as 1.2 searches for a plain text, and a hit of the byte 40 ns.
_SHARED = b"GMxFSvfhb"
# A pass for one anchor is cheaper as a plain search.
_FEWEST = 2
MOST_BUNDLES = 4096  # combinations of anchors that are remembered


class Scanner(Generic[R, B]):
    """Finds the lines that hold an anchor, and tells the bundle of rules that belongs to the anchors of a line."""

    def __init__(
        self,
        rules: Iterable[tuple[str, R]],
        bundle: Callable[[list[R]], B],
        guards: Mapping[str, str] | None = None,
    ) -> None:
        """Take pairs of an anchor and a rule; an anchor may stand in many pairs.

        `guards` are patterns that must match right behind an anchor, which then must share a byte with others.
        """
        self._rules: dict[bytes, list[R]] = {}
        for text, rule in rules:
            self._rules.setdefault(text.encode(), []).append(rule)
        self._bundle = bundle
        self._bundles: dict[tuple[bytes, ...], B] = {}
        groups: dict[int, list[bytes]] = {}
        for anchor in self._rules:
            byte = next((byte for byte in _SHARED if byte in anchor[:-1]), None)
            if byte is not None:
                groups.setdefault(byte, []).append(anchor)
        shared = {byte: sorted(anchors) for byte, anchors in groups.items() if len(anchors) >= _FEWEST}
        taken = {anchor for anchors in shared.values() for anchor in anchors}
        behind = {anchor.encode(): pattern.encode() for anchor, pattern in (guards or {}).items()}
        self._passes = [_Pass(byte, anchors, behind) for byte, anchors in shared.items()]
        self._alone = [anchor for anchor in self._rules if anchor not in taken]

    def lines(self, block: bytes, count: int) -> Iterator[tuple[int, bytes, B]]:
        """Yield number, bytes and rules of each line of `block` that holds an anchor, in order.

        `block` is made of whole lines; `count` is the number of lines before it.
        """
        hits: dict[int, list[bytes]] = {}
        find, rfind = block.find, block.rfind
        for anchor in self._alone:
            at = find(anchor)
            while at >= 0:
                hits.setdefault(rfind(b"\n", 0, at) + 1, []).append(anchor)
                end = find(b"\n", at)
                if end < 0:
                    break
                at = find(anchor, end)
        for one in self._passes:
            anchors = one.anchors
            for match in one.pattern.finditer(block):
                start = rfind(b"\n", 0, match.start()) + 1
                hits.setdefault(start, []).append(anchors[match.lastindex or 0])
        before = 0
        for start in sorted(hits):
            count += block.count(b"\n", before, start)
            before = start
            end = find(b"\n", start)
            found = tuple(sorted(set(hits[start])))
            rules = self._bundles.get(found)
            if rules is None:
                rules = self._bundle([rule for anchor in found for rule in self._rules[anchor]])
                if len(self._bundles) < MOST_BUNDLES:
                    self._bundles[found] = rules
            yield count + 1, block[start:] if end < 0 else block[start:end], rules


class _Pass:
    """One pass for several anchors with a byte in common: that byte, then the next, then the rest around them.

    The branches begin with the byte that follows, so that most of them fail at once. No anchor may hold another one
    at the same byte: only one of them would be found.
    """

    def __init__(self, byte: int, anchors: list[bytes], guards: Mapping[bytes, bytes]) -> None:
        branches = []
        for anchor in anchors:
            place = anchor.index(byte)
            behind = b"(?<=" + re.escape(anchor[: place + 2]) + b")" if place else b""
            ahead = b"(?=" + re.escape(anchor[place + 2 :]) + guards.get(anchor, b"") + b")"
            branches.append(re.escape(anchor[place + 1 : place + 2]) + behind + ahead + b"()")
        self.anchors = [b"", *anchors]
        self.pattern = re.compile(re.escape(bytes([byte])) + b"(?:" + b"|".join(branches) + b")")
