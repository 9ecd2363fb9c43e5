"""Carries out the core's commands with blocking I/O."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from time import sleep as pause
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from scaimind.core.commands import (
    Answer,
    Command,
    Emit,
    NewToken,
    Open,
    Pause,
    Receive,
    Request,
    Send,
)
from scaimind.errors import ConnectionFailed
from scaimind.tokens import Tokens
from scaimind.urls import api_url

_T = TypeVar("_T")
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
    ) -> None:
        self._root = api_url(url)
        self._tokens = tokens
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

    def result(self, steps: Generator[Command, Any, _T]) -> _T:
        """Carry out all commands, and return what the generator returns."""
        iterator = self.run(steps)
        while True:
            try:
                next(iterator)
            except StopIteration as stop:
                value: _T = stop.value
                return value

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
                            case Open(request):
                                open_answer.close()
                                response = open_answer.enter_context(self._stream(request))
                                told, pieces = _opened(response)
                            case Receive():
                                told = next(pieces, b"")
                    except (httpx2.TransportError, httpx2.StreamError) as error:
                        problem = ConnectionFailed(_text(error, self._root))
                        problem.__cause__ = error
            finally:
                steps.close()

    def _send(self, request: Request) -> Answer:
        with self._stream(request) as response:
            response.read()
            return Answer(response.status_code, _headers(response), response.content)

    def _stream(self, request: Request) -> Any:
        return self._http.stream(
            request.method,
            self._root + request.path,
            params=request.query,
            json=request.body,
            headers={**dict(request.headers), **self._tokens.header()},
            timeout=request.timeout,
        )


def _opened(response: httpx2.Response) -> tuple[Answer, Iterator[bytes]]:
    if response.status_code != 200:
        response.read()
        return Answer(response.status_code, _headers(response), response.content), iter(())
    return Answer(200, _headers(response)), response.iter_bytes()


def _headers(response: httpx2.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _text(error: Exception, url: str) -> str:
    return f"No answer from {url}: {error or type(error).__name__}"
