"""Event loops in threads of their own, on which records come in from nodes and are written.

The jobs' directories may be on a disk of the network, which takes a write when it
can: the coordinator's own loop waits for none. What has come in is written by the
thread that has received it, and only who it is about is told the other loop.
"""

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import uvloop

_T = TypeVar("_T")
#: Runs share them. One that waits for the disk has those of its loop wait.
_LOOPS: Final = 4
#: Threads that open the records of runs, which may have to wait for another writer.
_OPENERS: Final = 8


class LoopClosed(Exception):
    """Nothing is done there any more."""


class RecordLoop:
    """A loop and its thread, for another loop to have work done on it, which closes it."""

    def __init__(self, name: str) -> None:
        """Start it."""
        self._loop = uvloop.new_event_loop()
        self._closing = asyncio.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            # What is left is cancelled, and waited for.
            runner.run(self._closing.wait())

    async def carry_out(self, work: Callable[[], Coroutine[Any, Any, _T]], *, name: str) -> _T:
        """Have this done there, as a task of this name; returns or raises what it does.

        It is over when this is: a cancellation is passed on, and waited for. Raises LoopClosed.
        """
        if self._closed:
            raise LoopClosed
        here = asyncio.get_running_loop()
        over = asyncio.Event()
        begun: list[asyncio.Task[_T]] = []

        def begin() -> None:
            task = self._loop.create_task(work(), name=name)
            begun.append(task)
            task.add_done_callback(lambda _: here.call_soon_threadsafe(over.set))

        self._loop.call_soon_threadsafe(begin)
        cancelled = False
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                cancelled = True
                if not self._closed:
                    # Behind `begin`, whenever that is.
                    self._loop.call_soon_threadsafe(lambda: begun[0].cancel())
        (task,) = begun
        if cancelled:
            if not task.cancelled():
                # Whatever it is, nobody waits for it.
                task.exception()
            raise asyncio.CancelledError
        return task.result()

    def close(self) -> None:
        """Cancel what is done there, and stop. Blocks shortly."""
        if not self._closed:
            self._loop.call_soon_threadsafe(self._closing.set)
            self._closed = True
            self._thread.join()


class RecordLoops:
    """All that a coordinator has."""

    def __init__(self) -> None:
        #: Opens records.
        self.opening = ThreadPoolExecutor(_OPENERS, thread_name_prefix="records opening")
        self._loops: list[RecordLoop] = []
        self._runs = itertools.count()

    def take(self) -> RecordLoop:
        """Return one for another run."""
        number = next(self._runs) % _LOOPS
        if number == len(self._loops):
            self._loops.append(RecordLoop(f"records {number}"))
        return self._loops[number]

    def close(self) -> None:
        """Stop them all. Blocks shortly."""
        self.opening.shutdown(wait=True)
        for loop in self._loops:
            loop.close()
