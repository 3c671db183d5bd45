"""Damage that logs suffer: cut, glued, reordered, doubled, binary, wrapped by other tools, numbers gone wrong."""

import random
import re
from pathlib import Path

LOGS = Path(__file__).parents[1] / "data" / "logs"
_NUMBER = re.compile(rb"\d[\d.,]*")
_PIECES = (
    b"\n", b"\r", b"\r\n", b"\x00", b"\xff\xfe", b"\x1b[1;36m", b"\x1b]0;", b"\x1b", b"{", b'{"message": "', b'"}',
    b'msg="', b"\\", b"(Worker_TP0 pid=1) ", b"(EngineCore_DP1 pid=99999999999) ", b"INFO 01-01 00:00:00 [a.py:1] ",
    b" pid=", b"-", b",,", b".", b"nan", b"1e999", b"9" * 400, b" GiB", b"%s", b"{x}", b"\xc2\xb2", b"\xe2\x80\xae",
)  # fmt: skip


def corpus() -> list[list[bytes]]:
    """Return the lines of every log that the project keeps: real ones, and the golden ones of each version."""
    folders = (LOGS, LOGS.parents[1] / "golden" / "logs")
    return [path.read_bytes().split(b"\n") for folder in folders for path in sorted(folder.rglob("*.log"))]


def mutated(logs: list[list[bytes]], dice: random.Random) -> bytes:
    """Return a few lines of a random log, damaged in a few random ways."""
    lines = _window(logs, dice)
    for _ in range(dice.randrange(4)):
        match dice.randrange(6):
            case 0:
                dice.shuffle(lines)
            case 1:
                lines += _window(logs, dice)
            case 2:
                at = dice.randrange(len(lines))
                lines[at : at + 2] = [b"".join(lines[at : at + 2])]
            case 3:
                lines.insert(dice.randrange(len(lines)), dice.choice(lines))
            case 4:
                prefix = dice.choice(_PIECES)
                lines = [prefix + line for line in lines]
            case _:
                lines = [_wrong_number(line, dice) for line in lines]
    raw = bytearray(b"\n".join(lines))
    for _ in range(dice.randrange(6)):
        at = dice.randrange(len(raw) + 1)
        match dice.randrange(4):
            case 0:
                raw[at : at + dice.randrange(80)] = b""
            case 1:
                raw[at:at] = dice.choice(_PIECES) * dice.choice((1, 1, 1, 50))
            case 2:
                raw[at : at + 4] = dice.randbytes(4)
            case _:
                raw[at:at] = raw[max(0, at - dice.randrange(200)) : at]
    return bytes(raw)


def _window(logs: list[list[bytes]], dice: random.Random) -> list[bytes]:
    lines = dice.choice(logs)
    start = dice.randrange(len(lines))
    return lines[start : start + dice.choice((1, 3, 8, 20))] or [b""]


def _wrong_number(line: bytes, dice: random.Random) -> bytes:
    replacement = dice.choice((b"-1", b"0", b"-0.0", b"1,234,567", b"1e5", b"", b"99999999999999999999", b".", b"nan"))
    return _NUMBER.sub(replacement, line, count=dice.randrange(1, 4))
