"""Reading a request's content: once the caller is known, and bounded in size and time."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import hdrs, web

from app.api.app_keys import SERVER_SETTINGS
from app.api.content_codings import BadContent, decoder
from app.api.expectations import send_continue
from app.api.settings import ServerSettings
from app.errors import MALFORMED_REQUEST, PAYLOAD_TOO_LARGE, REQUEST_TIMEOUT, ApiError


async def read_content(request: web.Request) -> bytes:
    """Return the body without its content coding.

    Both the body and its content have at most `max_body_bytes`. The body has
    to arrive within `body_timeout` seconds and one more for each `min_rate`
    bytes of it. Raises `ApiError`, and `ConnectionError` if the client leaves.
    """
    limits = request.app[SERVER_SETTINGS]
    decode = decoder(request.headers.getall(hdrs.CONTENT_ENCODING, ()))
    if (request.content_length or 0) > limits.max_body_bytes:
        raise _too_large(limits)
    await send_continue(request)
    content = bytearray()
    try:
        received = 0
        async for data in arriving(request):
            received += len(data)
            if received > limits.max_body_bytes:
                raise _too_large(limits)
            for piece in decode.feed(data):
                content += piece
                if len(content) > limits.max_body_bytes:
                    raise _too_large(limits)
                if piece is not data:
                    await asyncio.sleep(0)  # what inflates has others wait for a piece at most
        decode.finish()
    except (web.RequestPayloadError, BadContent):
        raise ApiError(
            MALFORMED_REQUEST,
            "The request body does not match its Transfer-Encoding or Content-Encoding.",
        ) from None
    return bytes(content)


async def arriving(request: web.Request, *, longest_pause: bool = False) -> AsyncIterator[bytes]:
    """Yield the body as it arrives, within its time. The time between two pieces is not its own.

    With `longest_pause` the time that bytes have earned is never more than
    `body_timeout`: of a large body, too, nothing may fail to come for longer.
    Raises `ApiError` (`REQUEST_TIMEOUT`), and what `aiohttp` raises.
    """
    limits, body = request.app[SERVER_SETTINGS], request.content
    loop, left = asyncio.get_running_loop(), limits.body_timeout
    if body.is_eof():
        # All of it is here, as it mostly is: there is nothing to wait for.
        if data := body.read_nowait():
            yield data
        return
    while True:
        # Counted from the start: a byte more never buys more than its share.
        timeout = asyncio.timeout(left)
        began = loop.time()
        try:
            async with timeout:
                data = await body.readany()
        except TimeoutError:
            if not timeout.expired():
                raise ConnectionResetError("the connection timed out") from None
            raise ApiError(REQUEST_TIMEOUT, "The request body did not arrive in time.") from None
        if not data:
            return
        left += len(data) / limits.min_rate - (loop.time() - began)
        if longest_pause:
            left = min(left, limits.body_timeout)
        yield data


def _too_large(limits: ServerSettings) -> ApiError:
    return ApiError(PAYLOAD_TOO_LARGE, f"The request body exceeds {limits.max_body_bytes} bytes.")
