"""HTTP to ScaiKey: bounded in time and size, without cookies, proxies or redirects."""

import aiohttp


class AnswerTooLong(Exception):
    """An answer of ScaiKey exceeds the limit."""


def open_session(*, timeout: float) -> aiohttp.ClientSession:
    """Return the session shared by everything that asks ScaiKey, for the caller to close.

    `timeout` is for each request, in seconds.

    Requests must not follow redirects: what is sent to ScaiKey is for ScaiKey alone.
    """
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


async def read_bounded(response: aiohttp.ClientResponse, *, limit: int) -> bytes:
    """Read a body of at most `limit` bytes. Raises `AnswerTooLong`."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise AnswerTooLong(f"the answer is longer than {limit} bytes")
    return bytes(body)


def reason(error: Exception) -> str:
    """Return why a request to ScaiKey failed, for operators."""
    return "no answer in time" if isinstance(error, TimeoutError) else str(error)
