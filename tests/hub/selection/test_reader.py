"""One stream's turns, stepped by hand: states first, shares for all, bookmarks, forks."""

import json
import random
from collections.abc import Callable
from typing import Self

from app.hub.selection.places import LogPlace, Place, digest
from app.hub.selection.reader import Reader
from app.hub.selection.record import TenantRecord
from app.hub.selection.selection import Interest, Selection
from app.hub.selection.states import StatesBatch
from app.hub.selection.view import SelectionView
from tests.hub.selection.tenant import change, gone, whole

EPOCH = digest("e")[:6]


class Log:
    """A job's log: how many entries it has."""

    def __init__(self, size: int = 0) -> None:
        self.size = size


class FakeChannel:
    """Delivers the entries of a log from a place on."""

    def __init__(self, job_id: str, log: Log, at: int) -> None:
        self.job_id = job_id
        self.log = log
        self.at = at
        self.due: float | None = None
        self.closed = False

    @property
    def place(self) -> LogPlace:
        return LogPlace(EPOCH, self.at)

    def listen(self, on_news: Callable[[], None]) -> None:
        """Nobody is told."""

    def next(self, most: int, now: float, *, pass_over: bool) -> bytes:
        events = b""
        while self.at < self.log.size and len(events) < most:
            self.at += 1
            # About as short as a real one.
            events += b"event: log\ndata: %b %d %130s\n\n" % (self.job_id.encode(), self.at, b"")
        return events

    def same_place(self, other: Self) -> bool:
        return self.at == other.at

    def fork(self) -> Self:
        return type(self)(self.job_id, self.log, self.at)

    def close(self) -> None:
        self.closed = True


class World:
    """A tenant, the logs of its jobs, and readers."""

    def __init__(self, *, slice_bytes: int = 2000, follow: int = 64, tell: int = 100) -> None:
        self.record = TenantRecord(most=1000)
        self.record.take(whole(change(1, "a"), change(2, "b")))
        self.interest = Interest(selection=Selection.of(), logs=True, text="t")
        self.view = SelectionView(
            self.interest.selection, record=self.record, follow=follow, most=tell, now=0.0
        )
        self.logs: dict[str, Log] = {}
        self.slice_bytes = slice_bytes
        self.now = 0.0

    def take(self, *changes: object) -> None:
        self.view.take(self.record.take(StatesBatch(changes=[*changes])), 0.0)  # type: ignore[list-item]

    def channel(self, job_id: str, place: LogPlace | None) -> FakeChannel:
        log = self.logs.setdefault(job_id, Log())
        return FakeChannel(job_id, log, 0 if place is None else place.offset)

    def reader(self, place: Place | None = None) -> Reader:
        reader = Reader(
            self.view, self.interest, open_channel=self.channel, slice_bytes=self.slice_bytes
        )
        places = {} if place is None else place.logs
        if place is None:
            reader.begin()
        elif place.whole or self.view.leaves_out:
            reader.reset("limit")
        else:
            reader.resume(self.view.changes_of_record(place.version, 0.0, 0.0))
        followed = self.view.followed
        channels = [self.channel(job_id, places.get(digest(job_id))) for job_id in followed]
        reader.follow(followed, channels, places)
        return reader

    def step(self, reader: Reader) -> list[tuple[str, str, str]]:
        """Name, id and data of the events of one step."""
        events = []
        for block in reader.next(self.now).decode().split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            events.append((fields["event"], fields.get("id", ""), fields["data"].rstrip()))
        return events

    def settle(self, reader: Reader) -> list[tuple[str, str, str]]:
        """All steps until there is nothing more."""
        events = self.step(reader)
        while reader.more:
            events += self.step(reader)
        return events


def names(events: list[tuple[str, str, str]]) -> list[str]:
    return [name for name, _, _ in events]


def test_states_then_synced_then_a_bookmark_then_logs() -> None:
    world = World()
    world.logs["a"] = Log(2)
    assert names(world.settle(world.reader())) == ["job", "job", "synced", "bookmark", "log", "log"]


def test_a_large_state_comes_in_slices_and_no_log_before_it_is_complete() -> None:
    world = World(slice_bytes=100)
    world.take(*(change(number, f"j{number}") for number in range(3, 33)))
    world.logs["a"] = Log(1)
    reader = world.reader()
    assert names(world.step(reader)) == ["job", "job"]
    assert names(world.settle(reader)) == ["job"] * 30 + ["synced", "bookmark", "log"]


def test_each_job_has_a_share_of_each_step() -> None:
    world = World()
    world.logs |= {"a": Log(100_000), "b": Log(1)}
    reader = world.reader()
    first = world.step(reader)
    assert [data for name, _, data in first if name == "log" and data.startswith("b")] == ["b 1"]
    chatty = sum(data.startswith("a") for name, _, data in first if name == "log")
    assert 0 < chatty < 100
    world.logs["b"].size = 2
    assert "b 2" in [data for _, _, data in world.step(reader)]


def test_bookmarks_come_after_256_events_at_most_or_a_second() -> None:
    world = World(slice_bytes=64 * 1024)
    world.logs["a"] = Log(5000)
    since = 0
    for name, _, _ in world.settle(world.reader()):
        since = 0 if name == "bookmark" else since + 1
        assert since <= 256
    world.logs["a"] = Log()
    reader = world.reader()
    world.settle(reader)
    world.now = 5.0
    world.logs["a"].size = 1
    assert names(world.step(reader)) == ["log", "bookmark"]
    world.logs["a"].size = 2
    world.now = 5.5
    assert names(world.step(reader)) == ["log"]
    assert reader.due == 6.0
    world.now = 6.0
    assert names(world.step(reader)) == ["bookmark"]
    assert reader.at_head()


def test_a_fork_goes_on_where_it_was_made_and_meets_its_origin_again() -> None:
    world = World()
    world.logs |= {"a": Log(10), "b": Log(10)}
    reader = world.reader()
    world.settle(reader)
    world.now = 2.0
    world.step(reader)
    fork = reader.fork()
    assert fork.same_place(reader)
    world.logs["a"].size = 20
    world.take(change(3, "a", "PAUSED"))
    world.now = 4.0
    ours = world.settle(reader)
    assert not fork.same_place(reader)
    assert sorted(world.settle(fork)) == sorted(ours)
    assert fork.same_place(reader)


def test_a_job_that_leaves_is_followed_no_longer_and_keeps_its_place() -> None:
    world = World()
    world.logs["a"] = Log(5)
    reader = world.reader()
    world.settle(reader)
    world.take(gone(3, "a"))
    assert names(world.settle(reader)) == ["job_gone"]
    world.logs["a"].size = 7
    assert world.settle(reader) == []
    world.take(change(4, "a"))
    assert [data for name, _, data in world.settle(reader) if name == "log"] == ["a 6", "a 7"]


def test_who_never_had_a_job_that_left_is_not_at_the_place_of_who_had() -> None:
    world = World()
    world.logs["a"] = Log(5)
    had = world.reader()
    world.settle(had)
    world.take(gone(3, "a"))
    world.settle(had)
    never = world.reader()
    world.settle(never)
    assert not had.same_place(never)
    assert not never.same_place(had)
    assert had.same_place(had.fork())
    world.take(change(4, "a"))
    world.logs["a"].size = 6
    assert [data for name, _, data in world.settle(had) if name == "log"] == ["a 6"]
    everything = [f"a {offset}" for offset in range(1, 7)]
    assert [data for name, _, data in world.settle(never) if name == "log"] == everything
    world.now = 2.0
    world.settle(had)
    world.settle(never)
    assert had.same_place(never)


def test_growth_beyond_the_limit_is_told_once() -> None:
    world = World(follow=2)
    reader = world.reader()
    world.settle(reader)
    world.take(change(3, "c"))
    assert names(world.settle(reader)) == ["job", "limit"]
    world.take(change(4, "d"))
    assert names(world.settle(reader)) == ["job"]


def test_a_limit_of_states_is_told_beside_that_of_what_is_followed() -> None:
    world = World(follow=2, tell=3)
    reader = world.reader()
    world.settle(reader)
    world.take(change(3, "c"))
    assert names(world.settle(reader)) == ["job", "limit"]
    world.take(change(4, "d"))
    events = world.settle(reader)
    assert names(events) == ["bookmark", "job", "job_gone", "limit"]
    assert Place.parse(events[0][1]).whole
    assert events[-1][2] == '{"matching":4,"states":3,"followed":2}'
    world.take(change(5, "e"))
    assert names(world.settle(reader)) == ["job", "job_gone"]


def test_a_bookmark_of_a_stream_that_leaves_jobs_out_leads_to_what_it_tells_of() -> None:
    rng = random.Random(11)
    for _ in range(150):
        world, client = (
            World(slice_bytes=rng.choice([200, 2000]), tell=rng.choice([1, 3, 5])),
            Client(),
        )
        version, jobs, reader = 2, ["a", "b"], world.reader()
        for _ in range(60):
            world.now += rng.random()
            match rng.randrange(6):
                case 0:
                    version += 1
                    jobs.append(f"j{rng.randrange(100)}")
                    world.take(change(version, jobs[-1]))
                case 1:
                    version += 1
                    world.take(gone(version, rng.choice(jobs)))
                case 2:
                    version += 1
                    world.take(change(version, rng.choice(jobs)))
                case 3:
                    reader.close()
                    place = None if client.place is None else Place.parse(str(client.place))
                    reader = world.reader(place)
                    client.leave()
                case _:
                    client.take(world.step(reader))
            world.view.validate()
        client.take(world.settle(reader))
        told = [json.loads(event.split(b"data: ")[1])["job_id"] for event in world.view.state()]
        assert sorted(job for job, there in client.there.items() if there) == sorted(told)


class Client:
    """Remembers what it was sent; drops doubles."""

    def __init__(self) -> None:
        self.place: Place | None = None
        self.seen: dict[str, set[int]] = {}
        self.there: dict[str, bool] = {}
        #: Jobs of a whole state that is being told.
        self.arriving: set[str] | None = None

    def leave(self) -> None:
        """Lose the connection."""
        self.arriving = None
        if self.place is None:
            self.there.clear()

    def take(self, events: list[tuple[str, str, str]]) -> None:
        for name, identity, data in events:
            if name == "bookmark":
                self.place = Place.parse(identity)
            elif name == "log":
                job, _, offset = data.partition(" ")
                self.seen.setdefault(job, set()).add(int(offset))
            elif name == "reset":
                self.arriving = set()
            elif name == "synced" and self.arriving is not None:
                # Only now: until then the place before the reset is the client's.
                self.there = dict.fromkeys(self.arriving, True)
                self.arriving = None
            elif name in ("job", "job_gone"):
                self.there[data.split('"')[3]] = name == "job"
                if self.arriving is not None and name == "job":
                    self.arriving.add(data.split('"')[3])


def test_whoever_comes_back_with_any_bookmark_misses_nothing() -> None:
    rng = random.Random(7)
    for _ in range(100):
        world, client = World(slice_bytes=rng.choice([200, 2000, 20_000])), Client()
        version, jobs, reader = 2, ["a", "b"], world.reader()
        for _ in range(60):
            world.now += rng.random()
            match rng.randrange(6):
                case 0:
                    version += 1
                    jobs.append(f"j{version}")
                    world.take(change(version, jobs[-1]))
                case 1:
                    version += 1
                    world.take(gone(version, rng.choice(jobs)))
                case 2:
                    world.logs.setdefault(rng.choice(jobs), Log()).size += rng.randrange(50)
                case 3:
                    reader.close()
                    reader = world.reader(client.place)
                    client.leave()
                case _:
                    client.take(world.step(reader))
        client.take(world.settle(reader))
        assert {job for job, there in client.there.items() if there} == set(world.view.matching)
        for job in world.view.matching:
            expected = set(range(1, world.logs.setdefault(job, Log()).size + 1))
            assert client.seen.get(job, set()) == expected, job
