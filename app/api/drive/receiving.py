"""Receives a file: while one piece goes to the disk, the next one arrives."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeAlias

from aiohttp import hdrs, web

from app.api.content import arriving
from app.api.expectations import send_continue
from app.errors import MALFORMED_REQUEST, UNSUPPORTED_MEDIA_TYPE, ApiError

Write: TypeAlias = Callable[[bytearray], Awaitable[None]]

#: Bytes that go to the disk at once. Two pieces of a body are in memory at a time.
_PIECE: Final = 1024 * 1024


def check_coding(request: web.Request) -> None:
    """Refuse a body that is not the file itself. Raises `ApiError`."""
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower() != "identity":
        raise ApiError(
            UNSUPPORTED_MEDIA_TYPE,
            "Files are stored as they are sent. Send no Content-Encoding.",
        )
    if hdrs.CONTENT_RANGE in request.headers:
        # RFC 9110, 14.5
        raise ApiError(
            MALFORMED_REQUEST,
            "A file cannot be written in parts with PUT. Upload it to /v1/drive-uploads/.",
        )


async def receive(request: web.Request, write: Write, *, keep: bool = False) -> int:
    """Pass the body on, in order and one piece at a time; returns its size.

    With `keep`, what has arrived is passed on even if the body breaks off.
    Raises `ApiError`, what `write` raises, and `ConnectionError` if the client
    leaves.
    """
    await send_continue(request)
    size = 0
    pieces = _Pieces(write)
    try:
        async for data in arriving(request, longest_pause=True):
            size += len(data)
            await pieces.add(data)
        await pieces.flush()
    except web.RequestPayloadError:
        await _kept(pieces, keep)
        raise ApiError(
            MALFORMED_REQUEST, "The request body does not match its Transfer-Encoding."
        ) from None
    except (ApiError, ConnectionError):
        await _kept(pieces, keep)
        raise
    except BaseException:
        await pieces.abandon()
        raise
    return size


async def _kept(pieces: "_Pieces", keep: bool) -> None:
    if keep:
        with suppress(ApiError):
            await pieces.flush()
    await pieces.abandon()


class _Pieces:
    """Gathers what arrives into pieces, of which one is being written."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._gathered = bytearray()
        self._writing: asyncio.Task[None] | None = None
        self._failed = False

    async def add(self, data: bytes) -> None:
        """Take what has arrived; waits while two pieces are in memory. Raises what `write` does."""
        self._gathered += data
        if len(self._gathered) >= _PIECE:
            await self._written()
            piece, self._gathered = self._gathered, bytearray()
            self._writing = asyncio.create_task(self._pass_on(piece), name="drive-write")

    async def flush(self) -> None:
        """Wait until all of it is written; nothing once a write has failed."""
        await self._written()
        if self._gathered and not self._failed:
            piece, self._gathered = self._gathered, bytearray()
            await self._pass_on(piece)

    async def abandon(self) -> None:
        """Let go of what is being written."""
        if self._writing is not None:
            self._writing.cancel()
            with suppress(asyncio.CancelledError, ApiError, OSError):
                await self._writing

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            try:
                await writing
            except asyncio.CancelledError:
                writing.cancel()
                raise

    async def _pass_on(self, piece: bytearray) -> None:
        try:
            await self._write(piece)
        except BaseException:
            self._failed = True
            raise
