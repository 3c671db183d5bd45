"""One completion request: its tokens, its place in the engine and what it still has to produce."""

import asyncio
import zlib
from dataclasses import dataclass, field
from enum import Enum

CHARACTERS_PER_TOKEN = 4
_WORDS = ("the", "model", "keeps", "every", "token", "of", "this", "answer", "in", "its", "cache", "until", "done")


class Finish(Enum):
    """Why a request ended, as `finish_reason` has it."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(eq=False)
class Request:
    """A request in the engine; `blocks` are those of full attention, `window_blocks` of sliding windows."""

    prompt: list[int]
    max_tokens: int
    ignore_eos: bool = False
    min_tokens: int = 0
    produced: int = 0
    blocks: list[int] = field(default_factory=list)
    window_blocks: list[int] = field(default_factory=list)
    prefixes: list[int] = field(default_factory=list)
    started: float | None = None
    resumed_from: int = 0
    finish: Finish | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def tokens(self) -> int:
        """Return the tokens that have a place in the KV cache: prompt and answer so far."""
        return len(self.prompt) + self.produced

    @property
    def limit(self) -> int:
        """Return the tokens the answer will have: `max_tokens`, or fewer where the text ends by itself."""
        if self.ignore_eos:
            return self.max_tokens
        natural = 16 + (zlib.crc32(repr(self.prompt[:64]).encode()) % 240)
        return min(self.max_tokens, max(natural, self.min_tokens, 1))

    @property
    def expected_finish(self) -> Finish:
        """Return the reason with which the request will end when nobody aborts it."""
        return Finish.LENGTH if self.limit >= self.max_tokens else Finish.STOP


def tokenize(text: str) -> list[int]:
    """Return token numbers of a text, one for every four characters; equal text has equal tokens."""
    size = CHARACTERS_PER_TOKEN
    return [zlib.crc32(text[start : start + size].encode()) % 100_000 for start in range(0, len(text), size)]


def token_text(index: int) -> str:
    """Return the text of the answer's token number `index`."""
    word = _WORDS[index % len(_WORDS)]
    return word if index == 0 else f" {word}"


def block_prefixes(tokens: list[int], block_size: int) -> list[int]:
    """Return one number per full block that stands for all tokens up to its end."""
    prefixes = []
    running = 0
    for start in range(0, len(tokens) - block_size + 1, block_size):
        running = hash((running, tuple(tokens[start : start + block_size])))
        prefixes.append(running)
    return prefixes
