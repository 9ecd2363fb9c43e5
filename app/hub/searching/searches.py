"""Searches of logs: one upstream call for each client, within the limits of streams."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial

import structlog

from app.caller import Caller
from app.errors import COORDINATOR_TIMEOUT, COORDINATOR_UNAVAILABLE, SHUTTING_DOWN, ApiError
from app.hub.close_reasons import CloseReason
from app.hub.coding.offered import coding_of
from app.hub.connection import BROKEN, Connection, Watcher
from app.hub.limits import Group, StreamLimits
from app.hub.observer import HubObserver
from app.hub.open_streams import OpenStreams
from app.hub.searching.results import Found, Searcher
from app.hub.searching.search_watcher import SearchWatcher
from app.hub.settings import HubSettings
from app.hub.socket_pool import SocketPool
from app.hub.upstream import Position
from app.log_filter import LogFilter

log = structlog.get_logger()


class Searches:
    """Made and closed by the hub, within its event loop."""

    def __init__(
        self,
        *,
        searcher: Searcher,
        settings: HubSettings,
        observer: HubObserver,
        sockets: SocketPool,
        limits: StreamLimits,
        streams: OpenStreams,
        authorize: Callable[[Caller, str], Awaitable[None]],
    ) -> None:
        self._searcher = searcher
        self._settings = settings
        self._observer = observer
        self._sockets = sockets
        self._limits = limits
        self._streams = streams
        self._authorize = authorize
        self._loop = asyncio.get_running_loop()
        self._watchers: dict[Connection, SearchWatcher] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    async def watch(
        self,
        caller: Caller,
        job_id: str,
        *,
        log_filter: LogFilter,
        before: int,
        after: Position | None,
        limit: int,
        chunked: bool,
        gzip: bool = False,
    ) -> SearchWatcher | None:
        """Begin a search; the caller starts the watcher on a socket, or closes it.

        It begins before an offset, or with the newest entry (0); or where the client left off
        (`after`), unless the log is another one by now. None if there is nothing left to
        search behind that. Raises `ApiError`.
        """
        groups = self._limits.count_in(caller)
        begun = False
        try:
            await self._authorize(caller, job_id)
            if after is not None and after.offset <= 1:
                return None
            found, first = await self._open(
                caller, job_id, log_filter=log_filter, before=before, after=after, limit=limit
            )
            watcher = SearchWatcher(
                connect=partial(
                    self._connect,
                    caller=caller,
                    chunked=chunked,
                    gzip=gzip,
                    on_closed=partial(self._closed, caller, groups, job_id, self._loop.time()),
                ),
                found=found,
                first=first,
                job_id=job_id,
                retry_ms=self._settings.retry_ms,
            )
            if self._closing:
                await found.aclose()
                raise ApiError(SHUTTING_DOWN, retry_after=1)
            self._watchers[watcher.connection] = watcher
            self._streams.add(watcher.connection)
            self._observer.watcher_joined("search")
            begun = True
        finally:
            if not begun:
                self._limits.count_out(groups)
        return watcher

    def sweep(self, now: float, wall: float) -> None:
        """Check for stalled clients and expired tokens."""
        for connection in list(self._watchers):
            try:
                connection.check(now, wall, write_timeout=self._settings.write_timeout)
            except Exception:  # the other streams keep their limits
                log.exception("hub_search_sweep_failed")
                connection.close(BROKEN)

    async def close(self) -> None:
        """Wait for the end of all searches; their streams must have been closed."""
        self._closing = True
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _open(
        self,
        caller: Caller,
        job_id: str,
        *,
        log_filter: LogFilter,
        before: int,
        after: Position | None,
        limit: int,
    ) -> tuple[AsyncGenerator[Found, None], Found]:
        """Make the call, and wait for the first that it brings."""
        start = before if after is None else after.offset
        while True:
            found = self._searcher.search(
                caller, job_id, log_filter=log_filter, before=start, limit=limit
            )
            try:
                async with asyncio.timeout(self._settings.open_timeout):
                    first = await anext(found, None)
                if first is None:
                    raise ApiError(COORDINATOR_UNAVAILABLE)
            except TimeoutError:
                await found.aclose()
                raise ApiError(COORDINATOR_TIMEOUT) from None
            except BaseException:
                await found.aclose()
                raise
            if after is None or first.epoch == after.epoch:
                return found, first
            # The offset is one of a log that is no more.
            await found.aclose()
            start, after = 0, None

    def _connect(
        self,
        watcher: Watcher,
        *,
        caller: Caller,
        chunked: bool,
        gzip: bool,
        on_closed: Callable[[Connection, CloseReason], None],
    ) -> Connection:
        return Connection(
            caller=caller,
            chunked=chunked,
            gzip=coding_of(self._settings, gzip=gzip),
            pool=self._sockets,
            watcher=watcher,
            on_closed=on_closed,
        )

    def _closed(
        self,
        caller: Caller,
        groups: Sequence[Group],
        job_id: str,
        since: float,
        connection: Connection,
        reason: CloseReason,
    ) -> None:
        watcher = self._watchers.pop(connection)
        ending = watcher.task or self._loop.create_task(
            watcher.abandon(), name=f"hub-search-end-{job_id}"
        )
        self._tasks.add(ending)
        ending.add_done_callback(self._tasks.discard)
        self._limits.count_out(groups)
        self._streams.remove(connection)
        self._observer.watcher_left("search", reason)
        log.info(
            "hub_watcher_closed",
            kind="search",
            reason=reason.value,
            job_id=job_id,
            seconds=round(self._loop.time() - since, 3),
            request_id=caller.request_id,
            tenant_id=caller.tenant_id,
            user_id=caller.user_id,
        )
