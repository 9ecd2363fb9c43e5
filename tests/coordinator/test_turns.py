"""Tenants share places: none has all of them, and none waits for all that another asked for."""

import asyncio

import pytest

from app.coordinator.data.turns import Full, Turns


class Crowd:
    """Those who ask for places, and what became of them."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        #: Who was given a place, in that order.
        self.given: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._leave: dict[str, asyncio.Event] = {}

    async def ask(self, *names: str) -> None:
        """Ask for places; the first letter is the tenant."""
        for name in names:
            self._leave[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._have(name), name=name)
        await self.settled()

    async def _have(self, name: str) -> None:
        async with self.turns.turn(name[0]):
            self.given.append(name)
            await self._leave[name].wait()

    async def leave(self, *names: str) -> None:
        """Give places back."""
        self.let(*names)
        await self.settled()

    def let(self, *names: str) -> None:
        """Allow them to leave; they have not yet when this returns."""
        for name in names:
            self._leave[name].set()

    async def settled(self) -> None:
        """Let all go on until none can."""
        for _ in range(10):
            await asyncio.sleep(0)


async def test_a_tenant_has_half_of_the_places_and_the_others_the_rest() -> None:
    crowd = Crowd(Turns(places=4, room=100))
    await crowd.ask("a1", "a2", "a3", "a4", "b1", "c1")
    assert crowd.given == ["a1", "a2", "b1", "c1"]
    await crowd.leave("b1", "c1")
    assert crowd.given[4:] == []
    await crowd.leave("a1")
    assert crowd.given[4:] == ["a3"]
    await crowd.leave("a2", "a3", "a4")
    assert len(crowd.given) == 6


async def test_a_single_place_goes_from_tenant_to_tenant() -> None:
    crowd = Crowd(Turns(places=1, room=100))
    names = ["a1", "a2", "a3", "b1", "b2", "c1"]
    await crowd.ask(*names)
    for _ in names:
        await crowd.leave(crowd.given[-1])
    assert crowd.given == ["a1", "a2", "b1", "c1", "a3", "b2"]


async def test_a_tenant_has_half_of_the_room_and_another_is_let_in() -> None:
    crowd = Crowd(Turns(places=2, room=6))
    await crowd.ask("a1", "a2", "a3", "a4")
    with pytest.raises(Full):
        await crowd.tasks["a4"]
    await crowd.ask("b1", "b2", "b3", "c1")
    assert crowd.given == ["a1", "b1"]
    with pytest.raises(Full):
        # The room is full.
        await crowd.tasks["c1"]
    await crowd.leave("a1", "a2", "a3")
    await crowd.ask("c2")
    assert crowd.given == ["a1", "b1", "a2", "a3", "c2"]
    await crowd.leave("b1", "b2", "b3", "c2")


async def test_one_who_gives_up_leaves_nothing_behind() -> None:
    turns = Turns(places=1, room=4)
    crowd = Crowd(turns)
    await crowd.ask("a1", "b1", "c1")
    crowd.tasks["b1"].cancel()
    # At the moment in which it would have been its turn.
    await crowd.leave("a1")
    assert crowd.given == ["a1", "c1"]
    crowd.tasks["c1"].cancel()
    await crowd.settled()
    async with turns.turn("a"):
        pass


async def test_one_who_gives_up_with_a_place_just_given_passes_it_on() -> None:
    crowd = Crowd(Turns(places=1, room=8))
    await crowd.ask("a1", "b1", "c1")
    crowd.let("a1")
    await asyncio.sleep(0)
    assert crowd.tasks["a1"].done()
    assert crowd.given == ["a1"], "it was given one, and does not know yet"
    crowd.tasks["b1"].cancel()
    await crowd.settled()
    assert crowd.given == ["a1", "c1"]
    await crowd.leave("c1")


@pytest.mark.parametrize("places", [1, 2, 3])
async def test_everybody_has_a_turn(places: int) -> None:
    crowd = Crowd(Turns(places=places, room=100))
    names = [f"{tenant}{n}" for tenant in "abc" for n in range(8)]
    await crowd.ask(*names)
    while len(crowd.given) < len(names):
        before = len(crowd.given)
        await crowd.leave(*crowd.given)
        assert len(crowd.given) > before
    await crowd.leave(*crowd.given)
    assert sorted(crowd.given) == sorted(names)
