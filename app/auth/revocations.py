"""How a replica learns of a revoked API key or an ended console session, and what it does then.

At once by PostgreSQL's NOTIFY, on a connection of its own. And by itself,
since a notification can be missed: while the connection is made anew, behind
a proxy that does not pass it on, or where the connection is dead and nobody
has noticed yet. So the keys and sessions in use are looked up every few seconds, all of
a kind with one query.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import aiopg
import psycopg2
import structlog

from app.auth import console_sessions
from app.auth.settings import AuthSettings
from app.database.errors import SERVER_FAILURES, DatabaseError, reason
from app.database.polled_connection import PolledConnection
from app.database.settings import DatabaseSettings
from app.scaikey import api_keys
from app.scaikey.api_key_lookup import KeyLookup, Reader
from app.tasks.backoff import Backoff

log = structlog.get_logger()


class Streams(Protocol):
    """What is open, and by which credential and session."""

    def credentials(self) -> Iterable[str]:
        """Return the ids of the credentials and sessions behind the open streams."""

    def revoke(self, credential_id: str) -> None:
        """Close the streams that a credential or session opened."""


class OpenByCredential:
    """Several kinds of what is open, as one."""

    def __init__(self, *kinds: Streams) -> None:
        self._kinds = kinds

    def credentials(self) -> Iterable[str]:
        """Return the ids of the credentials and sessions behind all of it."""
        return {each for kind in self._kinds for each in kind.credentials()}

    def revoke(self, credential_id: str) -> None:
        """Close what a credential or session opened, of every kind."""
        for kind in self._kinds:
            kind.revoke(credential_id)


class Revocations:
    """Rejects revoked keys, and closes the streams of keys and sessions.

    `run` does the work until it is cancelled. While PostgreSQL cannot be
    asked, streams stay open for `unchecked_limit` seconds.
    """

    #: Seconds before listening is tried again: the first time, and at most.
    SHORTEST_PAUSE = 0.1
    LONGEST_PAUSE = 5.0

    def __init__(
        self,
        *,
        database: DatabaseSettings,
        settings: AuthSettings,
        reader: Reader,
        keys: KeyLookup,
        streams: Streams,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._settings = settings
        self._reader = reader
        self._keys = keys
        self._streams = streams
        self._clock = clock
        #: Requests in progress, by credential and session; they may be opening a stream.
        self._requests: Counter[str] = Counter()
        #: Of those the revoked ones.
        self._revoked: set[str] = set()
        #: Set when the keys in use are to be looked up at once.
        self._missed = asyncio.Event()
        self._checked_at = clock()

    def watched(self, revocable_by: Sequence[str]) -> "_Watched":
        """Go around a request, so that a stream which it opens meanwhile is not overlooked."""
        return _Watched(self, revocable_by)

    def _begin(self, revocable_by: Sequence[str]) -> None:
        for each in revocable_by:
            self._requests[each] += 1

    def _end(self, revocable_by: Sequence[str]) -> None:
        for each in revocable_by:
            self._requests[each] -= 1
            if each in self._revoked:
                self._streams.revoke(each)
            if not self._requests[each]:
                del self._requests[each]
                self._revoked.discard(each)

    async def run(self) -> None:
        """Listen and look, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(), name="revocations-listen")
            group.create_task(self._look_regularly(), name="revocations-look")

    async def _listen(self) -> None:
        backoff = Backoff(shortest=self.SHORTEST_PAUSE, longest=self.LONGEST_PAUSE)
        while not _stopping():
            began = self._clock()
            try:
                async with self._connect() as connection:
                    async with connection.cursor() as cursor:
                        await cursor.execute(f"LISTEN {api_keys.REVOCATIONS}")
                    log.info("revocations_listening")
                    self._missed.set()
                    while not _stopping():
                        self._apply((await connection.notifies.get()).payload)
            except (*SERVER_FAILURES, psycopg2.ProgrammingError, TimeoutError) as error:
                log.warning("revocations_not_listening", reason=reason(error))
            if self._clock() - began > self.LONGEST_PAUSE:
                # A connection that is made and lost at once, again and again, is no success.
                backoff.reset()
            await asyncio.sleep(backoff.pause())

    def _connect(self) -> Any:
        return aiopg.connect(
            self._database.dsn,
            timeout=self._database.connect_timeout,
            connection_factory=PolledConnection,
            enable_json=False,
            enable_hstore=False,
            enable_uuid=False,
            application_name="scaimind-gateway-revocations",
            # A peer that is gone without a word is noticed within 25 s.
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )

    async def _look_regularly(self) -> None:
        while not _stopping():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.recheck_interval):
                    await self._missed.wait()
            self._missed.clear()
            await self._look()

    async def _look(self) -> None:
        """Look up the keys and sessions behind open streams and requests in progress."""
        credentials = {*self._streams.credentials(), *self._requests}
        keys = {each for each in credentials if api_keys.KEY_ID.fullmatch(each)}
        sessions = {each for each in credentials if console_sessions.SESSION_ID.fullmatch(each)}
        try:
            counting = await self._counting(keys, sessions)
        except DatabaseError as error:
            self._could_not_look(keys | sessions, str(error))
            return
        for each in (keys | sessions) - counting:
            self._apply(each)
        self._checked_at = self._clock()

    async def _counting(self, keys: set[str], sessions: set[str]) -> set[str]:
        """Return those that count now. Raises `DatabaseError`."""
        rows: list[Sequence[Any]] = []
        if keys:
            rows += await self._reader.read(*api_keys.counting_statement(keys))
        if sessions:
            rows += await self._reader.read(*console_sessions.counting_statement(sessions))
        return {each for (each,) in rows}

    def _could_not_look(self, in_use: Iterable[str], why: str) -> None:
        seconds = self._clock() - self._checked_at
        log.warning("revocations_unknown", reason=why, seconds=round(seconds, 1))
        if seconds >= self._settings.unchecked_limit:
            for each in in_use:
                self._streams.revoke(each)

    def _apply(self, revoked: str) -> None:
        if console_sessions.SESSION_ID.fullmatch(revoked):
            log.info("console_session_ended", session_id=revoked)
        else:
            log.info("api_key_revoked", credential_id=revoked)
            self._keys.forget(revoked)
        if revoked in self._requests:
            self._revoked.add(revoked)
        self._streams.revoke(revoked)


class _Watched:
    """A request in progress. Not a generator: it goes around every request."""

    __slots__ = ("_revocable_by", "_revocations")

    def __init__(self, revocations: Revocations, revocable_by: Sequence[str]) -> None:
        self._revocations = revocations
        self._revocable_by = revocable_by

    def __enter__(self) -> None:
        self._revocations._begin(self._revocable_by)

    def __exit__(self, *_: object) -> None:
        self._revocations._end(self._revocable_by)


def _stopping() -> bool:
    """Return whether this task was cancelled.

    Under aiopg is `asyncio.wait_for`, which before Python 3.12 loses a
    cancellation that comes in the same turn of the loop as the result.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
