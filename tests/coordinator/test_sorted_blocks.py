"""Items in order: as a sorted list has them."""

from bisect import bisect_left, bisect_right
from random import Random

import pytest

from app.coordinator.scheduling.queues import sorted_blocks
from app.coordinator.scheduling.queues.sorted_blocks import SortedBlocks


@pytest.mark.parametrize("seed", range(20))
def test_they_are_as_in_a_sorted_list(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_blocks, "_SIZE", 3)
    choose = Random(seed)
    blocks: SortedBlocks[tuple[int]] = SortedBlocks()
    plain: list[tuple[int]] = []
    for _ in range(300):
        item = (choose.randrange(200),)
        if item in plain:
            plain.remove(item)
            blocks.remove(item)
        else:
            plain = sorted([*plain, item])
            blocks.add(item)
        asked = (choose.randrange(-1, 201),)
        assert list(blocks) == plain
        assert len(blocks) == len(plain)
        assert blocks.rank(asked) == bisect_left(plain, asked)
        assert list(blocks.behind(asked)) == plain[bisect_right(plain, asked) :]
    assert list(blocks.behind(None)) == plain
