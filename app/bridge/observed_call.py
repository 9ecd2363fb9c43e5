"""Wraps every call to the coordinator: translates its errors, reports its outcome."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TypeAlias

import grpc

from app.bridge.errors import translated_errors
from app.errors import ApiError

#: Told of each call once it is over: method, name of the gRPC status, and the
#: seconds that it took. They are None for a stream, which lasts as long as it is wanted.
Observe: TypeAlias = Callable[[str, str, float | None], None]


def nobody(method: str, code: str, seconds: float | None) -> None:
    """Observe nothing."""


@contextmanager
def observed(method: str, observe: Observe, *, stream: bool = False) -> Iterator[None]:
    """Make a call within, under the conditions of `translated_errors`.

    Raising an `ApiError` within says that the answer breaks the contract.
    """
    started = perf_counter()
    # What it stays when the call is given up on this side.
    code = "CANCELLED"
    try:
        with translated_errors(method=method):
            try:
                yield
            except grpc.aio.AioRpcError as error:
                code = error.code().name
                raise
            except ApiError:
                code = "DATA_LOSS"
                raise
        code = "OK"
    finally:
        observe(method, code, None if stream else perf_counter() - started)
