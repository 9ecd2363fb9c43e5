"""Entries that are judged apart: slow expressions take turns."""

import asyncio
from itertools import count

from app.hub.core.judging import Unjudged
from app.hub.filters.judge import Judge
from app.log_filter import LogFilter


def entries(number: int) -> list[Unjudged]:
    return [Unjudged(offset, 2, b'{"message":"loss %d"}' % offset) for offset in range(number)]


async def test_slow_expressions_hold_no_other_up() -> None:
    # By this clock each entry takes longer than a slice may.
    seconds = count()
    judge = Judge(clock=lambda: float(next(seconds)))
    done: list[str] = []

    async def have_judged(pattern: str, number: int) -> None:
        said = await judge.verdicts(LogFilter(matches=pattern), entries(number))
        assert said == [(offset, pattern == "loss") for offset in range(number)]
        done.append(pattern)

    try:
        async with asyncio.timeout(60):
            await asyncio.gather(
                *(have_judged(f"slow {number}", 100) for number in range(Judge.THREADS)),
                have_judged("loss", 3),
            )
    finally:
        judge.close()
    assert done[0] == "loss"


async def test_a_fast_expression_has_many_entries_judged_in_one_go() -> None:
    judge = Judge(clock=lambda: 0.0)
    try:
        said = await judge.verdicts(LogFilter(matches=r"loss \d*7$"), entries(250))
    finally:
        judge.close()
    assert [offset for offset, passed in said if passed] == [*range(7, 250, 10)]
