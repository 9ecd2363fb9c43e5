"""Turns: what may wait gets on a little at a time, all of it, and in order."""

import asyncio
import socket
from collections.abc import Callable, Generator
from itertools import count

import pytest

from app.tasks.turns import Turns


class Loop:
    """A loop that is stepped by hand, and a clock that its steps move."""

    def __init__(self) -> None:
        self.ready: list[Callable[[], None]] = []
        self.now = 0.0

    def turns(self) -> Turns:
        return Turns(self.ready.append, clock=lambda: self.now)

    def turn(self) -> None:
        ready, self.ready[:] = list(self.ready), []
        for each in ready:
            each()


#: Seconds of a step: half of what fits into a turn.
STEP = Turns.WORK / 2


def test_few_step_in_a_turn_and_nobody_twice_before_all_others() -> None:
    loop, stepped = Loop(), list[int]()
    turns = loop.turns()

    def step_of(number: int) -> Callable[[], None]:
        def step() -> None:
            stepped.append(number)
            loop.now += STEP
            if len(stepped) <= 100:
                turns.call_soon(step)

        return step

    for number in range(50):
        turns.call_soon(step_of(number))
    assert stepped == []
    counts = []
    while loop.ready:
        before = len(stepped)
        loop.turn()
        counts.append(len(stepped) - before)
    # Between two turns with work there are some without.
    assert counts[: 2 * (Turns.LEFT + 1)] == [2, *[0] * Turns.LEFT] * 2
    assert stepped == list(range(50)) * 3


async def test_what_arrives_reaches_its_task_before_the_next_piece_of_work() -> None:
    """Between two turns with work the loop gets from a socket to the task that reads it."""
    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)
    loop, order = asyncio.get_running_loop(), list[str]()
    # A turn ends with its first piece.
    turns = Turns(clock=count(step=Turns.WORK).__next__)

    async def reads() -> None:
        for _ in range(3):
            await loop.sock_recv(here, 1)
            order.append("arrived")

    def works() -> Generator[None, None, None]:
        for _ in range(3):
            order.append("piece")
            there.send(b"x")
            yield

    reading = asyncio.create_task(reads(), name="reads")
    await asyncio.sleep(0)
    await turns.run(works())
    await reading
    here.close()
    there.close()
    assert order == ["piece", "arrived"] * 3


def test_a_step_that_raises_holds_up_nobody() -> None:
    loop, stepped = Loop(), list[str]()
    turns = loop.turns()

    def fails() -> None:
        raise KeyError

    turns.call_soon(fails)
    turns.call_soon(lambda: stepped.append("next"))
    with pytest.raises(KeyError):
        loop.turn()
    while loop.ready:
        loop.turn()
    assert stepped == ["next"]


class Works:
    """Works that note their pieces."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def make(self, name: str, *, pieces: int) -> Generator[None, None, str]:
        for _ in range(pieces):
            self.done.append(name)
            yield
        return name


async def test_works_are_done_one_after_the_other_and_steps_between_their_pieces() -> None:
    turns, works = Turns(clock=lambda: 0.0), Works()

    def step() -> None:
        works.done.append("step")
        if works.done.count("step") < 5:
            turns.call_soon(step)

    turns.call_soon(step)
    both = asyncio.gather(
        turns.run(works.make("first", pieces=3)), turns.run(works.make("second", pieces=2))
    )
    assert list(await both) == ["first", "second"]
    assert [each for each in works.done if each != "step"] == ["first"] * 3 + ["second"] * 2
    assert works.done.count("step") == 5
    assert works.done.index("second") > works.done.index("step")


async def test_what_a_work_raises_is_raised_and_the_next_one_is_done() -> None:
    turns, works = Turns(), Works()

    def fails() -> Generator[None, None, None]:
        yield
        raise KeyError("piece")

    failing = asyncio.ensure_future(turns.run(fails()))
    next_one = asyncio.ensure_future(turns.run(works.make("next", pieces=2)))
    with pytest.raises(KeyError, match="piece"):
        await failing
    assert await next_one == "next"


async def test_a_work_whose_waiter_has_gone_is_closed() -> None:
    turns, begun, closed = Turns(), asyncio.Event(), asyncio.Event()

    def endless() -> Generator[None, None, None]:
        try:
            while True:
                begun.set()
                yield
        finally:
            closed.set()

    waiting = asyncio.ensure_future(turns.run(endless()))
    async with asyncio.timeout(60):
        await begun.wait()
        waiting.cancel()
        await closed.wait()
    assert waiting.cancelled()
