"""Searches of jobs' logs, each in a process of its own: SearchJobLogs."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
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
#: Seconds after which a message is sent, whether or not there is news.
_BEAT: Final = 0.2
#: Bytes of the memory of one process, and of the longest message that it can have to say.
_MEMORY: Final = 512 * 1024**2
_MAX_MESSAGE: Final = 2 * 1024**2

log = structlog.get_logger("scaimind.coordinator")


@dataclass(slots=True)
class _Progress:
    """How far a search is, as it is told while there is no news."""

    epoch: str
    scanned_to: int
    match_count: int = 0
    scanned_bytes: int = 0

    def take(self, message: SearchJobLogsResponse) -> None:
        self.scanned_to = message.scanned_to
        self.match_count = message.match_count
        self.scanned_bytes = message.scanned_bytes

    def message(
        self, end: SearchEnd.ValueType = SearchEnd.SEARCH_END_UNSPECIFIED
    ) -> SearchJobLogsResponse:
        return SearchJobLogsResponse(
            epoch=self.epoch,
            scanned_to=self.scanned_to,
            match_count=self.match_count,
            scanned_bytes=self.scanned_bytes,
            end=end,
        )


class LogSearches:
    """Runs searches; at most `searches` at once, and half of them of one tenant, but one at
    least. More are refused, not queued: who searches is waiting."""

    def __init__(self, *, searches: int, readable: tuple[str, ...]) -> None:
        """`readable` is what of the system every process may read."""
        self._readable = readable
        self._turns = Turns(places=searches, room=searches)

    async def search(
        self, tenant_id: str, directory: JobDir, request: SearchJobLogsRequest
    ) -> AsyncGenerator[SearchJobLogsResponse]:
        """What is found, and in the last message why the search ended.

        The process ends when the iterator is closed. Raises RequestError, OSError.
        """
        condition = _checked(request)
        try:
            async with self._turns.turn(tenant_id):
                epoch, last = await asyncio.to_thread(_state, directory)
                before = min(request.before_offset or last + 1, last + 1)
                progress = _Progress(epoch, before)
                if before <= 1:
                    yield progress.message(SearchEnd.SEARCH_END_EXHAUSTED)
                    return
                yield progress.message()
                asked = question(
                    directory.log,
                    condition=condition,
                    before=before,
                    bounds=SearchBounds(
                        matches=request.limit or _DEFAULT_MATCHES,
                        scanned_bytes=_MAX_SCANNED,
                        seconds=_MAX_SECONDS,
                    ),
                )
                async with aclosing(self._run(directory, asked, progress)) as messages:
                    async for message in messages:
                        yield message
        except Full:
            raise Overloaded(
                "too many searches of logs are running; try again in a moment"
            ) from None

    async def _run(
        self, directory: JobDir, asked: bytes, progress: _Progress
    ) -> AsyncGenerator[SearchJobLogsResponse]:
        rules = Rules(
            readable=(*self._readable, str(directory.log)),
            memory_bytes=_MEMORY,
            cpu_seconds=int(_MAX_SECONDS + _PATIENCE),
        )
        loop = asyncio.get_running_loop()
        ends = loop.time() + _MAX_SECONDS + _PATIENCE
        async with WorkerProcess(WORKER, rules, asked=asked, name="log search") as worker:
            while True:
                heard = asyncio.create_task(_hear(worker), name="log search: messages")
                try:
                    while not (await asyncio.wait((heard,), timeout=_BEAT))[0]:
                        if loop.time() > ends:
                            yield progress.message(SearchEnd.SEARCH_END_BUDGET)
                            return
                        yield progress.message()
                finally:
                    heard.cancel()
                    await asyncio.wait((heard,))
                message = heard.result()
                if message is None:
                    # It may have been deleted meanwhile.
                    await asyncio.to_thread(_state, directory)
                    await _tell_of_death(worker, progress)
                    raise Unavailable(
                        "the process of this search ended before the search did; search again"
                        f" with before_offset {progress.scanned_to}"
                    )
                progress.take(message)
                yield message
                if message.end:
                    return


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


async def _tell_of_death(worker: WorkerProcess, progress: _Progress) -> None:
    status = await worker.stop()
    log.error(
        "log_search_died",
        status=status,
        scanned_to=progress.scanned_to,
        stderr=worker.last_words,
    )
