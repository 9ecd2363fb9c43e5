"""Searches of jobs' logs, each in a process of its own: SearchJobLogs."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import structlog
from google.protobuf.message import DecodeError

from app.coordinator.data.turns import Full, Turns
from app.coordinator.errors import Overloaded, Unavailable, all_problems
from app.coordinator.logs.log import LogReader
from app.coordinator.logs.search import SearchBounds
from app.coordinator.logs.search_worker import LENGTH_BYTES, question
from app.coordinator.service.logs.filters import filter_of
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.workers.process import WorkerProcess
from app.coordinator.workers.rules import Rules
from app.log_filter import LogFilter
from generated.mindcoordinator.v1.logs_pb2 import (
    SearchEnd,
    SearchJobLogsRequest,
    SearchJobLogsResponse,
)

#: The module of a worker that searches.
WORKER: Final = "app.coordinator.logs.search_worker"
_DEFAULT_MATCHES: Final = 100
_MAX_MATCHES: Final = 1000
#: Bytes that one search looks at, and seconds that it takes, at most.
_MAX_SCANNED: Final = 4 * 1024**3
_MAX_SECONDS: Final = 30.0
#: Seconds beyond these in which a process has to come to an end by itself.
_PATIENCE: Final = 10.0
#: Messages that wait for a slow caller.
_WAITING: Final = 4
#: Seconds after which a message is sent, whether or not there is news.
_BEAT: Final = 0.2
#: Bytes of the memory of one process, and of the longest message that it can have to say.
_MEMORY: Final = 512 * 1024**2
_MAX_MESSAGE: Final = 2 * 1024**2

log = structlog.get_logger("scaimind.coordinator")


class LogSearches:
    """Runs searches; at most `searches` at once, and half of them of one tenant, but one at
    least. More are refused, not queued: who searches is waiting."""

    def __init__(self, *, searches: int, readable: tuple[str, ...]) -> None:
        """`readable` is what of the system every process may read."""
        self._readable = readable
        self._turns = Turns(places=searches, room=searches)
        self._works: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End all that run, and wait until their processes have ended."""
        while works := set(self._works):
            for work in works:
                work.cancel()
            await asyncio.wait(works)

    async def search(
        self, tenant_id: str, directory: JobDir, request: SearchJobLogsRequest
    ) -> AsyncGenerator[SearchJobLogsResponse]:
        """What is found, and in the last message why the search ended.

        The process ends when the iterator is closed, and after a bounded time
        however slowly the messages are taken. Raises RequestError, OSError.
        """
        condition = _checked(request)
        found: asyncio.Queue[SearchJobLogsResponse] = asyncio.Queue(_WAITING)
        work = asyncio.create_task(
            self._work(tenant_id, directory, condition, request, found), name="log search"
        )
        self._works.add(work)
        work.add_done_callback(self._works.discard)
        try:
            async with aclosing(_told(found, work)) as messages:
                async for message in messages:
                    yield message
        finally:
            work.cancel()
            await asyncio.wait((work,))

    async def _work(
        self,
        tenant_id: str,
        directory: JobDir,
        condition: LogFilter,
        request: SearchJobLogsRequest,
        found: asyncio.Queue[SearchJobLogsResponse],
    ) -> None:
        """Put what is found into a queue, up to the end, or as far as the time suffices."""
        try:
            async with (
                asyncio.timeout(_MAX_SECONDS + _PATIENCE),
                self._turns.turn(tenant_id),
            ):
                epoch, last = await asyncio.to_thread(_state, directory)
                before = min(request.before_offset or last + 1, last + 1)
                nothing = before <= 1
                await found.put(
                    SearchJobLogsResponse(
                        epoch=epoch,
                        scanned_to=before,
                        end=SearchEnd.SEARCH_END_EXHAUSTED
                        if nothing
                        else SearchEnd.SEARCH_END_UNSPECIFIED,
                    )
                )
                if not nothing:
                    bounds = SearchBounds(
                        matches=request.limit or _DEFAULT_MATCHES,
                        scanned_bytes=_MAX_SCANNED,
                        seconds=_MAX_SECONDS,
                    )
                    asked = question(
                        directory.log, condition=condition, before=before, bounds=bounds
                    )
                    await self._run(directory, asked, found)
        except Full:
            raise Overloaded(
                "too many searches of logs are running; try again in a moment"
            ) from None
        except TimeoutError:
            # It ends where it is.
            return

    async def _run(
        self, directory: JobDir, asked: bytes, found: asyncio.Queue[SearchJobLogsResponse]
    ) -> None:
        rules = Rules(
            readable=(*self._readable, str(directory.log)),
            memory_bytes=_MEMORY,
            cpu_seconds=int(_MAX_SECONDS + _PATIENCE),
        )
        async with WorkerProcess(WORKER, rules, asked=asked, name="log search") as worker:
            while (message := await _hear(worker)) is not None:
                await found.put(message)
                if message.end:
                    return
            # The log may have been deleted meanwhile.
            await asyncio.to_thread(_state, directory)
            log.error("log_search_died", status=await worker.stop(), stderr=worker.last_words)
            raise Unavailable(
                "the process of this search ended before the search did; search again from the"
                " last scanned_to on"
            )


async def _told(
    found: asyncio.Queue[SearchJobLogsResponse], work: asyncio.Task[None]
) -> AsyncGenerator[SearchJobLogsResponse]:
    """What is found, and how far the search is where there is no news. Raises what `work` does."""
    progress = SearchJobLogsResponse()
    while not progress.end:
        news = asyncio.create_task(found.get(), name="log search: news")
        try:
            await asyncio.wait((news, work), timeout=_BEAT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not news.done():
                news.cancel()
                await asyncio.wait((news,))
        if not news.cancelled():
            yield news.result()
            progress = news.result()
            del progress.matches[:]
        elif work.done():
            work.result()
            if found.empty():
                progress.end = SearchEnd.SEARCH_END_BUDGET
                yield progress
        elif progress.epoch:
            yield progress


def _checked(request: SearchJobLogsRequest) -> LogFilter:
    """The filter of a request. Raises InvalidArgument."""
    condition = LogFilter()
    with all_problems() as problems:
        with problems.collected():
            condition = filter_of(request.filter)
        if request.before_offset < 0:
            problems.add("before_offset", "must be 0 or more")
        if not 0 <= request.limit <= _MAX_MATCHES:
            problems.add("limit", f"must be from 0 to {_MAX_MATCHES}")
    return condition


def _state(directory: JobDir) -> tuple[str, int]:
    """A log's epoch, and the offset of its last entry."""
    with LogReader(directory.log) as reader:
        return reader.epoch, reader.last_offset()


async def _hear(worker: WorkerProcess) -> SearchJobLogsResponse | None:
    """The next message; None if the process ends without it."""
    try:
        size = int.from_bytes(await worker.output.readexactly(LENGTH_BYTES), "big")
        if size > _MAX_MESSAGE:
            return None
        return SearchJobLogsResponse.FromString(await worker.output.readexactly(size))
    except (asyncio.IncompleteReadError, DecodeError):
        return None
