"""Threads that wait for the disk or the store, so that the event loop and its others never do."""

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

import structlog

from app.drive.problems import busy, told

log = structlog.get_logger()

T = TypeVar("T")


class Turns(Generic[T]):
    """A queue of calls for threads to take. Safe to use from several threads.

    At most `most` calls of an owner are taken at a time; those beyond wait, and
    hold up nobody else's. Owners take turns.
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._waiting: dict[str, deque[T]] = {}
        self._taken: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, owner: str, call: T) -> None:
        """Add a call behind those of its owner."""
        with self._changed:
            self._waiting.setdefault(owner, deque()).append(call)
            self._changed.notify()

    def take(self) -> tuple[str, T] | None:
        """Wait for a call whose turn it is; None once this is closed and no call waits.

        Whoever takes it calls `done` when it is over.
        """
        with self._changed:
            while True:
                if (owner := self._next()) is not None:
                    break
                if self._closed and not self._waiting:
                    return None
                self._changed.wait()
            calls = self._waiting.pop(owner)
            call = calls.popleft()
            if calls:
                # Behind all other owners.
                self._waiting[owner] = calls
            self._taken[owner] += 1
            return owner, call

    def done(self, owner: str) -> None:
        """Note that a call of this owner is over."""
        with self._changed:
            self._taken[owner] -= 1
            if not self._taken[owner]:
                del self._taken[owner]
            # All: it is for a thread that waits for a call, or for the end.
            self._changed.notify_all()

    def close(self) -> None:
        """Let threads end, behind the calls that wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next(self) -> str | None:
        return next((owner for owner in self._waiting if self._taken[owner] < self._most), None)


class DriveThreads:
    """A fixed number of threads and a bounded queue of calls, on one event loop.

    A thread that is held stays held; it ends with the process, which does
    not wait for it. At most `waiting` calls are not done yet, and a caller waits
    `patience` seconds for its own, for ever if that is None. Of threads and of
    calls that wait, an owner (a tenant) has at most its `share`, at least one. An
    OSError of a call becomes the `ApiError` that stands for it. `waits_for` is
    what the log says of calls that take too long.
    """

    def __init__(
        self,
        *,
        threads: int,
        waiting: int,
        share: float,
        patience: float | None,
        name: str,
        waits_for: str = "disk",
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting = waiting
        self._waiting_of_one = max(1, int(waiting * share))
        self._patience = patience
        self._slow = f"drive_{waits_for}_slow"
        self._outstanding: Counter[str] = Counter()
        self._turns: Turns[_Call[Any]] = Turns(most=max(1, int(threads * share)))
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(1, threads + 1)
        ]
        for each in self._threads:
            each.start()

    async def run(
        self, owner: str, function: Callable[[], T], *, discard: Callable[[T], None] | None = None
    ) -> T:
        """Have a thread call the function, and return what it returns or raise what it raises.

        Nobody waits any more after the patience, or when this is cancelled; then
        the function is not begun, or what it returns is passed to `discard`, in a
        thread. Raises `ApiError` (`DRIVE_BUSY`).
        """
        return await self._wait(self._begin(owner, function, discard))

    def post(
        self, owner: str, function: Callable[[], None], *, done: Callable[[], None] = lambda: None
    ) -> None:
        """Have a thread call the function some time; it clears something away.

        `done` is called on the event loop after it.
        """
        self._put(_Call(owner, function, None, needed=True)).then.append(done)

    def close(self) -> None:
        """End the threads that are not held, behind the calls that wait."""
        self._turns.close()

    def _begin(
        self, owner: str, function: Callable[[], T], discard: Callable[[T], None] | None
    ) -> "_Call[T]":
        if (
            self._outstanding.total() >= self._waiting
            or self._outstanding[owner] >= self._waiting_of_one
        ):
            raise busy()
        return self._put(_Call(owner, function, discard))

    def _put(self, call: "_Call[T]") -> "_Call[T]":
        self._outstanding[call.owner] += 1
        self._turns.put(call.owner, call)
        return call

    async def _wait(self, call: "_Call[T]") -> T:
        limit = asyncio.timeout(self._patience)
        try:
            async with limit:
                return await call.future
        except TimeoutError:
            if not limit.expired():
                raise
            log.warning(self._slow, outstanding=self._outstanding.total())
            raise busy() from None

    def _work(self) -> None:
        while (taken := self._turns.take()) is not None:
            owner, call = taken
            result, error = call.perform()
            self._turns.done(owner)
            # Nobody is left to be told once the event loop is closed.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._settle, call, result, error)

    def _settle(self, call: "_Call[T]", result: T | None, error: BaseException | None) -> None:
        self._outstanding[call.owner] -= 1
        if not self._outstanding[call.owner]:
            del self._outstanding[call.owner]
        call.settle(result, error)
        discard = call.discard
        if discard is not None and result is not None and call.unwanted:
            self.post(call.owner, partial(discard, result))
        for each in call.then:
            each()


class _Call(Generic[T]):
    """A function on its way through a thread."""

    def __init__(
        self,
        owner: str,
        function: Callable[[], T],
        discard: Callable[[T], None] | None,
        *,
        needed: bool = False,
    ) -> None:
        self.owner = owner
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.discard = discard
        self.settled = False
        #: Whether nobody has waited for the result.
        self.unwanted = False
        #: What is to be called, on the event loop, once no thread is in the function any more.
        self.then: list[Callable[[], None]] = []
        self._function = function
        self._needed = needed

    def perform(self) -> tuple[T | None, BaseException | None]:
        """Call the function, unless nobody wants its result any more. In a thread."""
        if self.future.cancelled() and not self._needed:
            return None, None
        try:
            with told():
                return self._function(), None
        except BaseException as error:  # raised again where it is waited for
            return None, error

    def settle(self, result: T | None, error: BaseException | None) -> None:
        """Hand the result over to who waits. On the event loop."""
        self.settled = True
        if self._needed:
            self.future.cancel()
            if error is not None:
                log.warning("drive_cleanup_failed", reason=str(error))
        elif self.future.done():
            self.unwanted = True
        elif error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)  # type: ignore[arg-type]  # None if that is what T is


class Strand:
    """An owner's calls that use the same descriptors: one at a time, and then what closes them.

    A thread may still be in a call that nobody waits for any more.
    """

    def __init__(self, threads: DriveThreads, owner: str) -> None:
        self._threads = threads
        self._owner = owner
        self._last: _Call[Any] | None = None

    async def run(self, function: Callable[[], T]) -> T:
        """As `DriveThreads.run`; not once another call has raised."""
        call = self._threads._begin(self._owner, function, None)
        self._last = call
        return await self._threads._wait(call)

    def end(self, function: Callable[[], None], *, done: Callable[[], None] = lambda: None) -> None:
        """Have a thread call the function once no other one is in a call of these.

        `done` is called on the event loop after it, unless that is closed before.
        """

        def begin() -> None:
            self._threads.post(self._owner, function, done=done)

        if self._last is None or self._last.settled:
            begin()
        else:
            self._last.then.append(begin)
