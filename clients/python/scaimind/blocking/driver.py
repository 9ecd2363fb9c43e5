"""Carries out the core's commands with blocking I/O."""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from time import sleep as pause
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

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
#: Bytes of a file that are read at once.
PIECE = 256 * 1024
#: Each stream has a connection of its own, and there may be any number of them.
LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=20)


class SyncDriver:
    """One gateway, over one pool of connections. Safe to share between threads."""

    def __init__(
        self,
        url: str,
        tokens: Tokens,
        *,
        transport: httpx2.BaseTransport | None = None,
        verify: Any = True,
        fail_fast: bool = False,
    ) -> None:
        self._address = address(url)
        self._tokens = tokens
        #: Whether a request without an answer is the end, until there was one.
        self._fails = fail_fast
        self._http = httpx2.Client(
            transport=transport, verify=verify, follow_redirects=False, limits=LIMITS
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def result(
        self,
        steps: Generator[Command, Any, _T],
        emitted: Callable[[Any], None] | None = None,
    ) -> _T:
        """Carry out all commands, and return what the generator returns.

        What it emits goes to `emitted`.
        """
        iterator = self.run(steps)
        while True:
            try:
                item = next(iterator)
            except StopIteration as stop:
                value: _T = stop.value
                return value
            if emitted is not None:
                emitted(item)

    def run(self, steps: Generator[Command, Any, Any]) -> Generator[Any, None, Any]:
        """Carry out the commands, and yield what is emitted."""
        with ExitStack() as open_answer:
            pieces: Iterator[bytes] = iter(())
            told: Any = None
            problem: ConnectionFailed | None = None
            try:
                while True:
                    try:
                        command = steps.send(told) if problem is None else steps.throw(problem)
                    except StopIteration as stop:
                        return stop.value
                    told, problem = None, None
                    try:
                        match command:
                            case Emit(item):
                                yield item
                            case Pause(seconds):
                                open_answer.close()
                                pause(seconds)
                            case NewToken():
                                told = self._tokens.renew()
                            case Send(request):
                                told = self._send(request)
                                self._fails = False
                            case Open(request):
                                open_answer.close()
                                response = open_answer.enter_context(self._stream(request))
                                told, pieces = _opened(response)
                                self._fails = False
                            case Receive():
                                told = next(pieces, b"")
                    except (httpx2.TransportError, httpx2.StreamError) as error:
                        problem = ConnectionFailed(_text(error, self._address))
                        problem.__cause__ = error
                        if self._fails:
                            raise problem from error
            finally:
                steps.close()

    def _send(self, request: Request) -> Answer:
        with self._stream(request) as response:
            response.read()
            return Answer(response.status_code, _headers(response), response.content)

    def _stream(self, request: Request) -> Any:
        return self._http.stream(
            request.method,
            self._address + request.root + request.path,
            params=request.query,
            json=request.body,
            content=_content(request),
            headers={**headers_of(request), **self._tokens.header()},
            timeout=request.timeout,
        )


def headers_of(request: Request) -> dict[str, str]:
    """Return a request's headers; the length of a part of a file is told, too."""
    headers = dict(request.headers)
    if isinstance(request.content, FilePart):
        headers["Content-Length"] = str(request.content.length)
    return headers


def _content(request: Request) -> bytes | Iterator[bytes] | None:
    return _pieces(request.content) if isinstance(request.content, FilePart) else request.content


def _pieces(part: FilePart) -> Iterator[bytes]:
    with part.path.open("rb") as file:
        file.seek(part.offset)
        left = part.length
        while left and (piece := file.read(min(left, PIECE))):
            left -= len(piece)
            yield piece
    if left:
        raise FileChanged(f"{part.path} became shorter while it was sent.")


def _opened(response: httpx2.Response) -> tuple[Answer, Iterator[bytes]]:
    if response.status_code not in (200, 206):
        response.read()
        return Answer(response.status_code, _headers(response), response.content), iter(())
    return Answer(response.status_code, _headers(response)), response.iter_bytes()


def _headers(response: httpx2.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _text(error: Exception, url: str) -> str:
    return f"No answer from {url}: {error or type(error).__name__}"
