"""Carries out the core's commands on an asyncio event loop."""

import asyncio
from asyncio import sleep as pause
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from scaimind.blocking.driver import LIMITS, PIECE, headers_of
from scaimind.core.commands import (
    Answer,
    Command,
    Emit,
    FilePart,
    NewToken,
    Open,
    Pause,
    Receive,
    Request,
    Send,
)
from scaimind.errors import ConnectionFailed, FileChanged
from scaimind.tokens import Tokens
from scaimind.urls import address

_T = TypeVar("_T")


class AsyncDriver:
    """One gateway, over one pool of connections, for one event loop."""

    def __init__(
        self,
        url: str,
        tokens: Tokens,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        verify: Any = True,
        fail_fast: bool = False,
    ) -> None:
        self._address = address(url)
        self._tokens = tokens
        #: Whether a request without an answer is the end, until there was one.
        self._fails = fail_fast
        self._http = httpx2.AsyncClient(
            transport=transport, verify=verify, follow_redirects=False, limits=LIMITS
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def result(
        self,
        steps: Generator[Command, Any, _T],
        emitted: Callable[[Any], None] | None = None,
    ) -> _T:
        """Carry out all commands, and return what the generator returns.

        What it emits goes to `emitted`.
        """
        ending = _Ending()
        async for item in self.run(steps, ending):
            if emitted is not None:
                emitted(item)
        value: _T = ending.value
        return value

    async def run(
        self, steps: Generator[Command, Any, Any], ending: "_Ending | None" = None
    ) -> AsyncGenerator[Any, None]:
        """Carry out the commands, and yield what is emitted."""
        async with AsyncExitStack() as open_answer:
            pieces: AsyncIterator[bytes] | None = None
            told: Any = None
            problem: ConnectionFailed | None = None
            try:
                while True:
                    try:
                        command = steps.send(told) if problem is None else steps.throw(problem)
                    except StopIteration as stop:
                        if ending is not None:
                            ending.value = stop.value
                        return
                    told, problem = None, None
                    try:
                        match command:
                            case Emit(item):
                                yield item
                            case Pause(seconds):
                                await open_answer.aclose()
                                await pause(seconds)
                            case NewToken():
                                told = await asyncio.to_thread(self._tokens.renew)
                            case Send(request):
                                told = await self._send(request)
                                self._fails = False
                            case Open(request):
                                await open_answer.aclose()
                                response = await open_answer.enter_async_context(
                                    await self._stream(request)
                                )
                                told, pieces = await _opened(response)
                                self._fails = False
                            case Receive():
                                told = b"" if pieces is None else await anext(pieces, b"")
                    except (httpx2.TransportError, httpx2.StreamError) as error:
                        problem = ConnectionFailed(
                            f"No answer from {self._address}: {error or type(error).__name__}"
                        )
                        problem.__cause__ = error
                        if self._fails:
                            raise problem from error
            finally:
                steps.close()

    async def _send(self, request: Request) -> Answer:
        async with await self._stream(request) as response:
            await response.aread()
            return Answer(response.status_code, _headers(response), response.content)

    async def _stream(self, request: Request) -> Any:
        # A provider of tokens may ask a server.
        header = await asyncio.to_thread(self._tokens.header)
        return self._http.stream(
            request.method,
            self._address + request.root + request.path,
            params=request.query,
            json=request.body,
            content=_content(request),
            headers={**headers_of(request), **header},
            timeout=request.timeout,
        )


class _Ending:
    """What the core returned."""

    value: Any = None


async def _opened(response: httpx2.Response) -> tuple[Answer, AsyncIterator[bytes] | None]:
    if response.status_code not in (200, 206):
        await response.aread()
        return Answer(response.status_code, _headers(response), response.content), None
    return Answer(response.status_code, _headers(response)), response.aiter_bytes()


def _headers(response: httpx2.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _content(request: Request) -> bytes | AsyncIterator[bytes] | None:
    return _pieces(request.content) if isinstance(request.content, FilePart) else request.content


async def _pieces(part: FilePart) -> AsyncIterator[bytes]:
    # A disk may be slow: it is read by a thread.
    file = await asyncio.to_thread(part.path.open, "rb")
    try:
        await asyncio.to_thread(file.seek, part.offset)
        left = part.length
        while left and (piece := await asyncio.to_thread(file.read, min(left, PIECE))):
            left -= len(piece)
            yield piece
    finally:
        file.close()
    if left:
        raise FileChanged(f"{part.path} became shorter while it was sent.")
