"""A worker that is spoken with on the event loop: asked once, and heard piece by piece."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from app.coordinator.workers.rules import Rules, command

#: Seconds in which a process that is asked to end, or says nothing any more, is to end.
FAREWELL: Final = 5.0
#: Bytes of what a process says on stderr that are kept: the last.
_KEPT_WORDS: Final = 2000
_READ: Final = 64 * 1024


class WorkerProcess:
    """Runs a worker for a context, and ends it with all that it started at the end of it."""

    def __init__(
        self,
        module: str,
        rules: Rules,
        *arguments: str,
        asked: bytes,
        name: str,
        limit: int = _READ,
    ) -> None:
        """The worker is given `arguments`, and reads `asked` from stdin; `limit` are the bytes of
        its longest line."""
        self._module = module
        self._rules = rules
        self._arguments = arguments
        self._asked = asked
        self._name = name
        self._limit = limit
        self._started: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._last_words = b""

    async def __aenter__(self) -> Self:
        """Start it. Raises OSError."""
        try:
            await _to_end(self._start(), name=f"{self._name}: start")
        except asyncio.CancelledError:
            if self._started is not None:
                await _to_end(self._close(), name=f"{self._name}: end")
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it, if it has not ended; wait until it has, also where the task is cancelled."""
        await _to_end(self._close(), name=f"{self._name}: end")

    async def _start(self) -> None:
        argv, environment = command(self._module, self._rules, *self._arguments)
        self._started = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd="/",
            start_new_session=True,
            limit=self._limit,
        )
        self._tasks = [
            asyncio.create_task(self._ask(), name=f"{self._name}: questions"),
            asyncio.create_task(self._listen(), name=f"{self._name}: stderr"),
        ]

    async def _close(self) -> None:
        await self.stop()
        # They end with the process: its pipes are closed then.
        await asyncio.gather(self.output.read(), *self._tasks)

    @property
    def _process(self) -> asyncio.subprocess.Process:
        assert self._started is not None
        return self._started

    @property
    def output(self) -> asyncio.StreamReader:
        """What it says on stdout."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def last_words(self) -> str:
        """The end of what it said on stderr."""
        return self._last_words.decode(errors="replace")

    async def ended(self) -> int:
        """Its status, once it has closed its outputs; negative if a signal ended it."""
        try:
            async with asyncio.timeout(FAREWELL):
                status = await self._process.wait()
        except TimeoutError:
            status = await self.stop()
        await asyncio.gather(*self._tasks)
        return status

    async def stop(self) -> int:
        """Ask the process to end all that it started, and itself; returns its status."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
        try:
            async with asyncio.timeout(FAREWELL):
                return await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            return await self._process.wait()

    async def _ask(self) -> None:
        assert self._process.stdin is not None
        # It may have ended already; that shows where its answer is awaited.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.write(self._asked)
            await self._process.stdin.drain()
        self._process.stdin.close()

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        while block := await self._process.stderr.read(_READ):
            self._last_words = (self._last_words + block)[-_KEPT_WORDS:]


async def _to_end(work: Coroutine[Any, Any, None], *, name: str) -> None:
    """Await something to its end. A cancellation meanwhile is raised then."""
    task = asyncio.create_task(work, name=name)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()
