"""Reads that are shared: whatever happens in whatever order, nobody gets what is not theirs."""

import asyncio
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.tasks.shared_reads import SharedReads

#: Seconds: for a test's life, and for less than a turn of the loop.
LONG, SHORT = 1_000.0, 1e-9


class Broken(Exception):
    """What a read fails with."""


@dataclass
class Read:
    """One that is at work, or was."""

    owner: str
    question: str
    #: Writes about its owner that had been answered when it began.
    writes: int
    outcome: "asyncio.Future[None]"


@dataclass
class Store:
    """What is read: answers name the state of their owner when they were begun."""

    writes: dict[str, int] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)

    async def read(self, owner: str, question: str) -> Read:
        read = Read(
            owner,
            question,
            self.writes.get(owner, 0),
            asyncio.get_running_loop().create_future(),
        )
        self.reads.append(read)
        await read.outcome
        return read


@dataclass
class Asking:
    """A caller, with what may not be older than its question."""

    owner: str
    question: str
    writes: int
    #: Reads that had failed when it asked.
    failed: list[Read]
    task: "asyncio.Task[Read]"


OWNERS, QUESTIONS = st.sampled_from("ab"), st.sampled_from("xy")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), OWNERS, QUESTIONS),
        st.tuples(st.just("write"), OWNERS),
        st.tuples(st.just("answer"), st.integers(0, 9)),
        st.tuples(st.just("fail"), st.integers(0, 9)),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
        st.tuples(st.just("write for all")),
    ),
    max_size=40,
)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@settings(deadline=None, max_examples=300)
@given(steps=STEPS, kept=st.sampled_from([LONG, SHORT, 0.0]))
def test_an_answer_is_the_owners_and_no_older_than_the_question(
    steps: list[tuple[Any, ...]], kept: float
) -> None:
    asyncio.run(run(steps, kept))


async def run(steps: list[tuple[Any, ...]], kept: float) -> None:
    store, reads, askings = Store(), SharedReads[Read](kept=kept), list[Asking]()
    for step in steps:
        open_reads = [read for read in store.reads if not read.outcome.done()]
        match step:
            case ("ask", owner, question):
                failed = [read for read in store.reads if read.outcome.done() and is_failed(read)]

                work = partial(store.read, owner, question)
                task = asyncio.create_task(reads.ask(owner, question, work))
                askings.append(Asking(owner, question, store.writes.get(owner, 0), failed, task))
            case ("write", owner):
                store.writes[owner] = store.writes.get(owner, 0) + 1
                reads.forget(owner)
            case ("write for all",):
                for owner in "ab":
                    store.writes[owner] = store.writes.get(owner, 0) + 1
                reads.forget_all()
            case ("answer", at) if open_reads:
                open_reads[int(at) % len(open_reads)].outcome.set_result(None)
            case ("fail", at) if open_reads:
                open_reads[int(at) % len(open_reads)].outcome.set_exception(Broken())
            case ("cancel", at) if askings:
                askings[int(at) % len(askings)].task.cancel()
        await turns()
        check_at_hand(store, reads)
    at_work = [(read.owner, read.question, read.writes) for read in store.reads]
    if kept == LONG:
        # No second one at the same time for the same, between two writes: but for failures.
        good = [
            key
            for key, read in zip(at_work, store.reads, strict=True)
            if not (read.outcome.done() and is_failed(read))
        ]
        assert len(set(good)) == len(good)
    for read in store.reads:
        if not read.outcome.done():
            read.outcome.set_result(None)
    await turns()
    for asking in askings:
        assert asking.task.done()
        if asking.task.cancelled():
            continue
        if (error := asking.task.exception()) is not None:
            assert isinstance(error, Broken)
            continue
        read = asking.task.result()
        assert (read.owner, read.question) == (asking.owner, asking.question)
        assert read.writes >= asking.writes
        assert read not in asking.failed
    await reads.close()


def check_at_hand(store: Store, reads: SharedReads[Read]) -> None:
    """Without waiting nobody gets what they would not get by asking."""
    for owner, question in product("ab", "xy"):
        read = reads.at_hand(owner, question)
        if read is not None:
            assert (read.owner, read.question) == (owner, question)
            assert read.writes == store.writes.get(owner, 0)
            assert read.outcome.done()
            assert not is_failed(read)


def is_failed(read: Read) -> bool:
    return read.outcome.cancelled() or read.outcome.exception() is not None


async def test_a_failure_reaches_all_who_wait_and_nobody_else() -> None:
    store, reads = Store(), SharedReads[Read](kept=LONG)
    first = [
        asyncio.create_task(reads.ask("a", "x", lambda: store.read("a", "x"))) for _ in range(3)
    ]
    await turns()
    [read] = store.reads
    read.outcome.set_exception(Broken())
    for task in first:
        with pytest.raises(Broken):
            await task
    again = asyncio.create_task(reads.ask("a", "x", lambda: store.read("a", "x")))
    await turns()
    assert len(store.reads) == 2
    store.reads[1].outcome.set_result(None)
    assert await again is store.reads[1]
    await reads.close()


async def test_it_goes_on_when_those_who_asked_first_are_cancelled() -> None:
    store, reads = Store(), SharedReads[Read](kept=LONG)
    first = asyncio.create_task(reads.ask("a", "x", lambda: store.read("a", "x")))
    await turns()
    second = asyncio.create_task(reads.ask("a", "x", lambda: store.read("a", "x")))
    await turns()
    first.cancel()
    await turns()
    [read] = store.reads
    read.outcome.set_result(None)
    assert await second is read
    await reads.close()


async def test_nothing_is_kept_when_its_time_is_over() -> None:
    store, reads = Store(), SharedReads[Read](kept=0.01)
    for number in range(2):
        task = asyncio.create_task(reads.ask("a", "x", lambda: store.read("a", "x")))
        await turns()
        store.reads[number].outcome.set_result(None)
        await task
        async with asyncio.timeout(60):
            while reads._flights:  # noqa: ASYNC110 - a timer of its own
                await asyncio.sleep(0.005)
    assert len(store.reads) == 2
    await reads.close()


async def test_closing_ends_what_is_at_work() -> None:
    store, reads = Store(), SharedReads[Read](kept=LONG)
    task = asyncio.create_task(reads.ask("a", "x", lambda: store.read("a", "x")))
    await turns()
    await reads.close()
    with pytest.raises(asyncio.CancelledError):
        await task
