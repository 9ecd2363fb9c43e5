"""How a feed learns that its job, which has ended, was deleted: by any replica, or by itself."""

import asyncio
from collections.abc import Callable
from typing import Final

from app.errors import JOB_NOT_FOUND, ApiError
from app.hub.core.judging import ALL
from app.hub.job_reads import JobReads
from app.hub.upstream import Position

#: Seconds between two looks.
INTERVAL: Final = 5.0


async def until_deleted(
    reads: JobReads,
    *,
    position: Callable[[], Position | None],
    is_read: Callable[[], bool],
    request_id: str,
) -> ApiError:
    """Wait until a job is no more; returns the coordinator's error.

    The coordinator is asked for next to nothing behind the log's end, and only
    while somebody has not yet received all of the log.
    """
    while True:
        await asyncio.sleep(INTERVAL)
        end = position()
        if end is None or not is_read():
            continue
        read = reads.after(
            end, through=max(end.offset, 1), asked=ALL, own=ALL, request_id=request_id
        )
        try:
            await asyncio.shield(read)
        except ApiError as error:
            if error.kind is JOB_NOT_FOUND:
                return error
