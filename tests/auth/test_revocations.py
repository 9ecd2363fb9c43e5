"""The rules of revocations, without a database: what is looked up, and what if that fails."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from unittest.mock import AsyncMock

import psycopg2
import pytest
from prometheus_client import CollectorRegistry, Counter

from app.auth import revocations
from app.auth.revocations import Revocations
from app.auth.settings import AuthSettings
from app.database.errors import DatabaseError
from app.database.settings import DatabaseSettings
from app.scaikey.api_key_lookup import KeyLookup
from app.tasks.backoff import Backoff
from tests.auth.conftest import Clock

ONE, OTHER = "key_" + "1" * 16, "key_" + "2" * 16
NOWHERE = DatabaseSettings(dsn="postgresql://127.0.0.1:1/none", connect_timeout=1)


class Database:
    """Knows which keys count; tells when it was asked."""

    def __init__(self) -> None:
        self.counting = {ONE, OTHER}
        self.failing = False
        self.asked: list[list[str]] = []
        self.answered = asyncio.Condition()

    async def read(self, statement: str, parameters: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        [named] = parameters
        key_ids = [f"ses_{each.hex()}" if isinstance(each, bytes) else each for each in named]
        self.asked.append(key_ids)
        async with self.answered:
            self.answered.notify_all()
        if self.failing:
            raise DatabaseError("Connection refused")
        return [(key_id,) for key_id in key_ids if key_id in self.counting]

    async def rounds(self, count: int) -> None:
        """Wait until it was asked this many more times."""
        until = len(self.asked) + count
        async with asyncio.timeout(60), self.answered:
            await self.answered.wait_for(lambda: len(self.asked) >= until)


class Streams:
    """Who has streams open, and whose were closed."""

    def __init__(self, *open_now: str) -> None:
        self.open = list(open_now)
        self.revoked: list[str] = []
        self.closed = asyncio.Event()

    def credentials(self) -> list[str]:
        return self.open

    def revoke(self, credential_id: str) -> None:
        self.revoked.append(credential_id)
        self.closed.set()
        self.open = [each for each in self.open if each != credential_id]


@asynccontextmanager
async def running(database: Database, streams: Streams, clock: Clock) -> AsyncIterator[Revocations]:
    settings = AuthSettings(recheck_interval=0.01, unchecked_limit=60)
    keys = KeyLookup(
        database=database,
        ttl=3,
        size=10,
        clock=clock,
        lookups=Counter("lookups", "", ("result",), registry=CollectorRegistry()),
    )
    revocations = Revocations(
        database=NOWHERE,
        settings=settings,
        reader=database,
        keys=keys,
        streams=streams,
        clock=clock,
    )
    task = asyncio.create_task(revocations.run())
    try:
        yield revocations
    finally:
        task.cancel()
        done, _ = await asyncio.wait((task,), timeout=60)
        assert done, "it goes on"


async def test_each_key_in_use_is_asked_for_once_and_nothing_else(clock: Clock) -> None:
    database, streams = Database(), Streams(ONE, ONE, OTHER, "jwt:1", "jwt:key_" + "1" * 16, "")
    async with running(database, streams, clock):
        await database.rounds(1)
    assert sorted(database.asked[0]) == [ONE, OTHER]
    assert streams.revoked == []


async def test_a_session_that_has_ended_is_found_without_a_notification(clock: Clock) -> None:
    ended, lasting = "ses_" + "1" * 64, "ses_" + "2" * 64
    database, streams = Database(), Streams(ONE, ended, lasting)
    database.counting = {ONE, lasting}
    async with running(database, streams, clock):
        await database.rounds(4)
    assert database.asked[:2] == [[ONE], [ended, lasting]]
    assert streams.revoked == [ended]
    assert streams.open == [ONE, lasting]


async def test_without_streams_nothing_is_asked(clock: Clock) -> None:
    database, streams = Database(), Streams("jwt:1")
    async with running(database, streams, clock):
        await asyncio.sleep(0.1)
        assert database.asked == []
        streams.open.append(ONE)
        await database.rounds(1)


async def test_a_request_in_progress_counts_as_a_stream_to_be(clock: Clock) -> None:
    database, streams = Database(), Streams()
    database.counting = {OTHER}
    async with running(database, streams, clock) as revocations:
        with revocations.watched((OTHER,)), revocations.watched((ONE,)):
            with revocations.watched((ONE,)):
                await database.rounds(2)
            streams.revoked.clear()
        # What was opened meanwhile is closed at the end of the request, and this is forgotten.
        assert streams.revoked == [ONE]
        streams.revoked.clear()
        with revocations.watched((OTHER,)):
            pass
        assert streams.revoked == []


async def test_streams_are_kept_for_a_while_when_nobody_can_be_asked(clock: Clock) -> None:
    database, streams = Database(), Streams(ONE, "jwt:1")
    async with running(database, streams, clock):
        await database.rounds(1)
        database.failing = True
        clock.now += 59
        await database.rounds(2)
        assert streams.revoked == []
        clock.now += 1.5
        async with asyncio.timeout(60):
            await streams.closed.wait()
        assert streams.revoked == [ONE]
        assert streams.open == ["jwt:1"]


async def test_an_answer_in_between_begins_the_while_anew(clock: Clock) -> None:
    database, streams = Database(), Streams(ONE)
    async with running(database, streams, clock):
        for failing in (True, False, True):
            database.failing = failing
            clock.now += 40
            await database.rounds(3)
        assert streams.revoked == []


class Lossy:
    """A connection at which a cancellation is lost while it is made, and nothing is ever said."""

    def __init__(self) -> None:
        self.connecting = asyncio.Event()
        self.notifies: asyncio.Queue[Any] = asyncio.Queue()

    async def __aenter__(self) -> "Lossy":
        self.connecting.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    @asynccontextmanager
    async def cursor(self) -> AsyncIterator["Lossy"]:
        yield self

    async def execute(self, statement: str) -> None:
        assert statement.startswith("LISTEN ")


async def test_it_stops_although_its_cancellation_was_lost(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = Lossy()
    monkeypatch.setattr(Revocations, "_connect", lambda _: connection)
    async with running(Database(), Streams(), clock), asyncio.timeout(60):
        await connection.connecting.wait()


async def test_it_stops_although_its_cancellation_was_lost_in_a_query(clock: Clock) -> None:
    class Deaf(Database):
        async def read(
            self, statement: str, parameters: Sequence[Any] = ()
        ) -> Sequence[Sequence[Any]]:
            rows = await super().read(statement, parameters)
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return rows

    database = Deaf()
    async with running(database, Streams(ONE), clock):
        await database.rounds(1)


async def test_a_listener_that_is_lost_as_soon_as_it_listens_pauses_longer_and_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    enough = asyncio.Event()

    class Lost:
        """A connection that is made, and breaks at its first notification."""

        notifies = AsyncMock()

        @asynccontextmanager
        async def cursor(self) -> AsyncIterator[AsyncMock]:
            yield AsyncMock()

    @asynccontextmanager
    async def connect(_: Revocations) -> AsyncIterator[Lost]:
        yield Lost()

    class Pauses(Backoff):
        """None is waited for."""

        def pause(self) -> float:
            pauses.append(super().pause())
            if len(pauses) == 8:
                enough.set()
            return 0

    Lost.notifies.get.side_effect = psycopg2.OperationalError("server closed the connection")
    monkeypatch.setattr(Revocations, "_connect", connect)
    monkeypatch.setattr(revocations, "Backoff", Pauses)
    async with running(Database(), Streams(), Clock()), asyncio.timeout(60):
        await enough.wait()
    assert pauses[7] > 2 * pauses[0]
