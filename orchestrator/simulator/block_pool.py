"""The pool of KV-cache blocks: allocation, sharing by prefix, and eviction of the least recently freed."""

from collections import OrderedDict


class BlockPool:
    """Blocks of one engine; block 0 is the null block, which no request ever gets.

    A freed block keeps its prefix until the pool needs it for something else.
    """

    def __init__(self, num_blocks: int) -> None:
        if num_blocks < 1:
            raise ValueError("a pool has at least the null block")
        self.num_blocks = num_blocks
        self._free: OrderedDict[int, None] = OrderedDict((block, None) for block in range(1, num_blocks))
        self._references: dict[int, int] = {}
        self._prefix_of: dict[int, int] = {}
        self._block_of: dict[int, int] = {}

    @property
    def free_blocks(self) -> int:
        """Return the blocks that no request holds, cached ones included."""
        return len(self._free)

    @property
    def used_blocks(self) -> int:
        """Return the blocks that requests hold; a shared one counts once, the null block never."""
        return self.num_blocks - 1 - len(self._free)

    def cached(self, prefix: int) -> int | None:
        """Return the block that holds a prefix, None when none does."""
        return self._block_of.get(prefix)

    def allocate(self, count: int) -> list[int] | None:
        """Take `count` blocks, the longest-free ones first; None, and nothing taken, when there are fewer."""
        if count > len(self._free):
            return None
        blocks = []
        for _ in range(count):
            block, _none = self._free.popitem(last=False)
            prefix = self._prefix_of.pop(block, None)
            if prefix is not None:
                del self._block_of[prefix]
            self._references[block] = 1
            blocks.append(block)
        return blocks

    def share(self, block: int) -> None:
        """Hold a block that already has what a request needs."""
        self._free.pop(block, None)
        self._references[block] = self._references.get(block, 0) + 1

    def is_free(self, block: int) -> bool:
        """Say whether no request holds the block."""
        return block in self._free

    def remember(self, block: int, prefix: int) -> None:
        """Note that a held block now has all tokens of a prefix; a prefix known elsewhere stays there."""
        if prefix not in self._block_of and block not in self._prefix_of:
            self._block_of[prefix] = block
            self._prefix_of[block] = prefix

    def release(self, blocks: list[int]) -> None:
        """Give blocks back, the last one first, so that the start of a prompt stays cached longest."""
        for block in reversed(blocks):
            self._references[block] -= 1
            if self._references[block] == 0:
                del self._references[block]
                self._free[block] = None
