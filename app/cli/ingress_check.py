"""Checks, as a client, whether proxies in front of the gateway hold back streams.

The gateway itself cannot: a proxy that buffers takes everything at once and
says nothing. Every stream begins with an event, so a client that gets the
headers of a stream and then nothing has a proxy in between that holds it back.
"""

import asyncio
from typing import Literal

import aiohttp
import structlog

from app.hub.coding.gzip_stream import HEADER

log = structlog.get_logger()

Finding = Literal["ingress_buffers", "ingress_compresses"]

_ADVICE: dict[Finding, str] = {
    "ingress_buffers": "The stream's first event did not arrive: a proxy buffers events. "
    "Turn off its response buffering for the paths of streams (nginx: proxy_buffering off).",
    "ingress_compresses": "A proxy compresses the stream. Events are delayed unless it flushes "
    "after each: exclude text/event-stream from compression.",
}


class CannotCheck(Exception):
    """No stream was given; the text says what was answered."""


async def check_ingress(url: str, *, key: str, job_id: str, patience: float = 5.0) -> list[Finding]:
    """Open a job's log through `url`, the public address; what is wrong with how it comes.

    Each finding is logged as a warning. `patience` is how long, in seconds, the
    first event may take. Raises `CannotCheck`.
    """
    findings: list[Finding] = []
    stream = f"{url.rstrip('/')}/v1/modules/scaimind/jobs/{job_id}/logs"
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {key}", "Accept-Encoding": "gzip"},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=patience, sock_read=None),
        auto_decompress=False,
    ) as http:
        try:
            async with asyncio.timeout(patience) as limit:
                async with http.get(stream, params={"tail": "0"}) as answer:
                    if answer.status != 200 or answer.content_type != "text/event-stream":
                        raise CannotCheck(
                            f"{stream} answered {answer.status} {answer.content_type}; "
                            "a running job and a key that may view it are required."
                        )
                    packed = answer.headers.get("Content-Encoding", "identity") != "identity"
                    limit.reschedule(asyncio.get_running_loop().time() + patience)
                    if not packed:
                        await answer.content.readany()
                    # The gateway itself compresses with SCAIMIND_HUB_COMPRESSION=gzip.
                    elif await _read_most(answer.content, len(HEADER)) != HEADER:
                        findings.append("ingress_compresses")
                    else:
                        await answer.content.readany()
        except aiohttp.ClientError as error:
            # Before the next one: a connection that times out is both.
            raise CannotCheck(f"{stream} cannot be reached: {error}") from error
        except TimeoutError:
            findings.append("ingress_buffers")
    for each in findings:
        log.warning(each, url=url, advice=_ADVICE[each])
    return findings


async def _read_most(content: aiohttp.StreamReader, size: int) -> bytes:
    """Return so many bytes, which may come in pieces of any length; fewer at the stream's end."""
    try:
        return await content.readexactly(size)
    except asyncio.IncompleteReadError as error:
        return error.partial
