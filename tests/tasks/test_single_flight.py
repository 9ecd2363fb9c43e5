"""One piece of work for all who ask, whoever of them leaves."""

import asyncio
import gc

import pytest

from app.tasks.single_flight import SingleFlight


class Work:
    """Waits at its gate, and counts how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.gate = asyncio.Event()
        self.problem: Exception | None = None

    async def __call__(self) -> int:
        self.begun += 1
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        return self.begun


async def test_who_asks_meanwhile_shares_one_task_and_who_asks_later_does_not() -> None:
    flights, work = SingleFlight[str, int](), Work()
    asking = [asyncio.create_task(flights.ask("a", work, name="work")) for _ in range(20)]
    await asyncio.sleep(0)
    work.gate.set()
    assert await asyncio.gather(*asking) == [1] * 20
    assert flights.running("a") is None
    assert await flights.ask("a", work, name="work") == 2


async def test_other_questions_have_other_tasks() -> None:
    flights, work = SingleFlight[str, int](), Work()
    tasks = {flights.start(question, work, name=question) for question in "abca"}
    work.gate.set()
    await flights.finish()
    assert work.begun == len(tasks) == 3


async def test_the_work_goes_on_when_the_first_who_asked_is_cancelled() -> None:
    flights, work = SingleFlight[str, int](), Work()
    first = asyncio.create_task(flights.ask("a", work, name="work"))
    await asyncio.sleep(0)
    second = asyncio.create_task(flights.ask("a", work, name="work"))
    first.cancel()
    await asyncio.wait((first,))
    assert first.cancelled()
    work.gate.set()
    assert await second == 1


async def test_a_failure_reaches_all_and_is_not_remembered() -> None:
    flights, work = SingleFlight[str, int](), Work()
    work.problem = ValueError("no")
    work.gate.set()
    answers = await asyncio.gather(
        *(flights.ask("a", work, name="work") for _ in range(3)), return_exceptions=True
    )
    assert answers == [work.problem] * 3
    work.problem = None
    assert await flights.ask("a", work, name="work") == 2


async def test_a_failure_that_nobody_waits_for_is_not_reported_as_forgotten() -> None:
    loop = asyncio.get_running_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    flights, work = SingleFlight[str, int](), Work()
    work.problem = ValueError("no")
    asking = asyncio.create_task(flights.ask("a", work, name="work"))
    await asyncio.sleep(0)
    asking.cancel()
    work.gate.set()
    await flights.finish()
    del asking
    await asyncio.sleep(0)
    assert not reported


async def test_closing_cancels_the_work_and_waits_for_its_end() -> None:
    flights, work = SingleFlight[str, int](), Work()
    asking = asyncio.create_task(flights.ask("a", work, name="work"))
    await asyncio.sleep(0)
    await flights.close()
    assert flights.running("a") is None
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_failure_that_nobody_waits_for_any_more_is_not_reported_as_a_fault() -> None:
    flights, work = SingleFlight[str, int](), Work()
    reported: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context["message"]))
    flights.start("a", work, name="work")
    work.problem = ValueError("too late")
    work.gate.set()
    await flights.finish()
    gc.collect()
    assert reported == []
