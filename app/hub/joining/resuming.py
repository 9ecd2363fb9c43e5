"""Whether a position that a client came back with is one of the job, as far as anybody knows.

A client may come from a replica that was ahead of this one: whatever this
feed does not know, the coordinator is asked for. Calling such a position
unknown would send the client again what it has had.
"""

from app.errors import FAILED_PRECONDITION, ApiError
from app.hub.core.judging import ALL
from app.hub.feed import Feed
from app.hub.upstream import LogPage, Position

UNKNOWN_EPOCH = "unknown_epoch"
FUTURE_OFFSET = "future_offset"


async def why_not_in_log(feed: Feed, after: Position, *, request_id: str) -> str | None:
    """Return why a position is not in the job's log; None if it is.

    Then the feed has its epoch, though perhaps not its offset yet. Raises
    `ApiError` if the coordinator cannot answer, or the feed stays behind it.
    """
    core = feed.core
    while after.epoch != core.epoch or after.offset > core.last:
        page = await _page_behind(feed, after, request_id=request_id)
        if page is None and after.epoch != core.epoch:
            return UNKNOWN_EPOCH
        if page is not None and after.epoch == core.epoch:
            return FUTURE_OFFSET if after.offset > page.last_offset else None
        # The coordinator has another log than this feed.
        await feed.other_log()
    return None


async def why_no_snapshot(feed: Feed, after: Position, *, request_id: str) -> str | None:
    """Return why a position is not one of the job's metrics; None if it is.

    Raises `ApiError` as `why_not_in_log` does.
    """
    start = Position(after.epoch, 0)
    reason = await why_not_in_log(feed, start, request_id=request_id)
    if reason is not None or after.offset <= feed.metrics.sequence(feed.core.epoch):
        return reason
    try:
        newest = await feed.answer(feed.reads.snapshots(request_id=request_id))
    except ApiError:
        # Without an answer, what this feed has is what is known.
        return FUTURE_OFFSET
    return FUTURE_OFFSET if after.offset > newest else None


async def _page_behind(feed: Feed, after: Position, *, request_id: str) -> LogPage | None:
    """Ask for next to nothing behind a position; None if its epoch is not the log's."""
    read = feed.reads.after(
        after,
        through=max(after.offset, 1),
        asked=ALL,
        own=ALL,
        generation=feed.core.generation,
        request_id=request_id,
    )
    try:
        page = await feed.answer(read)
    except ApiError as error:
        if error.kind is FAILED_PRECONDITION:
            return None
        raise
    return page if page.epoch == after.epoch else None
