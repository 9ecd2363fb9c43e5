"""The `Expect` header (RFC 9110, 10.1.1).

A client that expects `100-continue` is asked for its body when a handler
wants it, and not before: one that is refused gets the final status at once.
"""

from aiohttp import HttpVersion11, web

from app.errors import EXPECTATION_FAILED, ApiError

#: What the request expects, or nothing; the HTTP server puts it here, and hides it from aiohttp,
#: which would answer before anything is known of the caller.
EXPECTATION: web.RequestKey[str] = web.RequestKey("expectation", str)

_CONTINUE = "100-continue"


def heed_expectation(request: web.Request) -> None:
    """Refuse what cannot be fulfilled. Clients of HTTP/1.0 expect nothing. Raises `ApiError`."""
    expected = request.get(EXPECTATION)
    if expected and expected.lower() != _CONTINUE and request.version >= HttpVersion11:
        raise ApiError(EXPECTATION_FAILED)


def awaits_continue(request: web.Request) -> bool:
    """Return whether the client may be holding its body back."""
    return (
        bool(request.get(EXPECTATION))
        and request.version >= HttpVersion11
        and not request.content.total_bytes
    )


async def send_continue(request: web.Request) -> None:
    """Ask for the body if the client waits to be asked."""
    if awaits_continue(request):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # It is no part of the answer, which has not begun.
        request.writer.output_size = 0
