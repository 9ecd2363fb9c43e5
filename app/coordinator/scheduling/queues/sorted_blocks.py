"""Items in order, of which any comes or goes at the same cost."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Final, Generic, TypeVar

#: Items of a block, which is cut in two at twice as many.
_SIZE: Final = 1024


_T = TypeVar("_T", bound=tuple[Any, ...])


class SortedBlocks(Generic[_T]):
    """A sorted list in blocks: in one list, each item that comes or goes moves all behind it."""

    def __init__(self) -> None:
        self._blocks: list[list[_T]] = []
        #: The last item of each block.
        self._lasts: list[_T] = []
        self._count = 0

    def add(self, item: _T) -> None:
        """Put an item in."""
        self._count += 1
        if not self._blocks:
            self._blocks.append([item])
            self._lasts.append(item)
            return
        at = min(bisect_left(self._lasts, item), len(self._blocks) - 1)
        block = self._blocks[at]
        insort(block, item)
        if len(block) >= 2 * _SIZE:
            self._blocks.insert(at + 1, block[_SIZE:])
            del block[_SIZE:]
            self._lasts.insert(at, block[-1])
        self._lasts[at] = block[-1]
        if at + 1 < len(self._blocks):
            self._lasts[at + 1] = self._blocks[at + 1][-1]

    def remove(self, item: _T) -> None:
        """Take an item out, which is there."""
        at = bisect_left(self._lasts, item)
        block = self._blocks[at]
        number = bisect_left(block, item)
        assert block[number] == item
        del block[number]
        self._count -= 1
        if block:
            self._lasts[at] = block[-1]
        else:
            del self._blocks[at], self._lasts[at]

    def __len__(self) -> int:
        """Count the items."""
        return self._count

    def __iter__(self) -> Iterator[_T]:
        """All in order; none may come or go meanwhile."""
        return chain.from_iterable(self._blocks)

    def rank(self, item: _T) -> int:
        """Count the items before one, which need not be there."""
        at = bisect_left(self._lasts, item)
        before = sum(map(len, islice(self._blocks, at)))
        return before + (bisect_left(self._blocks[at], item) if at < len(self._blocks) else 0)

    def behind(self, item: _T | None) -> Iterator[_T]:
        """The items behind one, which need not be there; all without one."""
        if item is None:
            return iter(self)
        at = bisect_right(self._lasts, item)
        if at == len(self._blocks):
            return iter(())
        first = islice(self._blocks[at], bisect_right(self._blocks[at], item), None)
        return chain(first, chain.from_iterable(islice(self._blocks, at + 1, None)))
