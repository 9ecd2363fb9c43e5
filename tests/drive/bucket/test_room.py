"""Room in a store: counted when a tenant writes, seldom, and whatever the store does meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any, cast

import pytest

from app.drive.bucket import room as module
from app.drive.bucket.room import BucketRoom
from app.errors import ApiError
from app.objects.store import DriveUnavailable, ObjectStore, StoredObject


class Listed:
    """A store that only lists."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.counts = 0
        self.away = False

    def objects(self, prefix: str, *, limit: int | None = None) -> Iterator[StoredObject]:
        if self.away:
            raise DriveUnavailable("503")
        self.counts += prefix == "acme/"
        for key, size in self.sizes.items():
            if key.startswith(prefix):
                yield StoredObject(key, size, '"e"', 0)

    def children(self, prefix: str, **_: Any) -> Iterator[StoredObject]:
        return iter(())


class Clock:
    """Told to go on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def listed() -> Listed:
    return Listed()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def room(listed: Listed, clock: Clock) -> AsyncIterator[BucketRoom]:
    found = BucketRoom(cast(ObjectStore, listed), quota=1000, monotonic=clock)
    yield found
    await found.close()


async def write(room: BucketRoom, size: int) -> None:
    """Have a file of this size come."""
    async with room.leased("acme", size) as lease:
        lease.growth = size


async def test_what_comes_between_two_counts_is_added(
    room: BucketRoom, listed: Listed, clock: Clock
) -> None:
    listed.sizes = {"acme/a": 300, "rival/a": 900}
    await write(room, 200)
    await write(room, 100)
    assert (room.used("acme"), listed.counts) == (600, 1)
    async with room.leased("acme", 400):
        with pytest.raises(ApiError, match=r"needs 1 bytes more.* 1000 of its 1000"):
            await write(room, 1)
    room.add("acme", -200)
    assert room.used("acme") == 400
    # What others have written meanwhile is in the next count, for which nobody waits.
    listed.sizes["acme/b"] = 650
    clock.now = 601.0
    await write(room, 10)
    await room.count("acme")
    assert listed.counts >= 2
    assert room.used("acme") in (950, 960)


async def test_several_replicas_let_in_little_more_than_there_is_room_for(
    listed: Listed, clock: Clock
) -> None:
    rooms = [BucketRoom(cast(ObjectStore, listed), quota=1000, monotonic=clock) for _ in range(5)]
    # By a count every ten minutes alone, each would let in a thousand bytes.
    for number in range(50):
        clock.now += 11
        with suppress(ApiError):
            await write(rooms[number % 5], 90)
            listed.sizes[f"acme/{number}"] = 90
    assert clock.now < 600
    # A tenth of the quota for each but one.
    assert 900 < sum(listed.sizes.values()) <= 1400
    # What goes makes room for all of them.
    listed.sizes.clear()
    clock.now += 11
    for room in rooms:
        await write(room, 10)
        await room.close()


async def test_a_tenth_of_the_time_is_spent_on_counting(
    room: BucketRoom, listed: Listed, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed.sizes = {"acme/a": 990}
    await write(room, 1)
    clock.now = 9.0
    await write(room, 1)
    assert listed.counts == 1
    listing = listed.objects

    def slow(prefix: str, **given: Any) -> Iterator[StoredObject]:
        clock.now += 10.0
        return listing(prefix, **given)

    monkeypatch.setattr(listed, "objects", slow)
    clock.now = 11.0
    await write(room, 1)
    assert listed.counts == 2
    took = clock.now - 11.0
    clock.now = 11.0 + 10 * took
    await write(room, 1)
    assert listed.counts == 2
    clock.now += 1.0
    await write(room, 1)
    assert listed.counts == 3


async def test_a_store_that_is_away_leaves_the_number_that_is_known(
    room: BucketRoom, listed: Listed, clock: Clock
) -> None:
    listed.away = True
    with pytest.raises(ApiError, match="DRIVE_UNAVAILABLE"):
        await write(room, 1)
    listed.away = False
    listed.sizes = {"acme/a": 990}
    await write(room, 5)
    listed.away = True
    clock.now = 601.0
    await write(room, 5)
    # It may be that of the write, which nobody waits for.
    with suppress(ApiError):
        await room.count("acme")
    assert room.used("acme") == 1000


async def test_too_many_objects_are_not_counted(
    room: BucketRoom, listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST", 3)
    listed.sizes = {f"acme/{number}": 1 for number in range(4)}
    with pytest.raises(ApiError, match="cannot be counted"):
        await write(room, 1)


async def test_without_a_quota_nothing_is_counted(listed: Listed) -> None:
    room = BucketRoom(cast(ObjectStore, listed), quota=0)
    async with asyncio.timeout(60):
        await write(room, 10**18)
    assert listed.counts == 0
    await room.close()
