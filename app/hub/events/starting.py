"""Where a followed job's log and metrics begin for a client."""

from dataclasses import dataclass

from app.hub.core.judging import ALL
from app.hub.feed import Feed
from app.hub.joining.resuming import FUTURE_OFFSET, UNKNOWN_EPOCH, why_no_snapshot, why_not_in_log
from app.hub.joining.tails import find_tail
from app.hub.selection.places import LogPlace, digest
from app.hub.selection.selection import Interest
from app.hub.upstream import Position


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where to start, in the feed's present log."""

    #: Entries behind it are to be delivered.
    offset: int
    #: The snapshot that the client has.
    seen: Position | None = None
    #: Why the client's place is none of this log; and the first entry that it misses, if known.
    gap: str | None = None
    gap_from: int | None = None


async def find_beginning(
    feed: Feed, start: LogPlace | int | None, interest: Interest, *, request_id: str
) -> Beginning:
    """Find where to start: behind a place, before the newest entries, or (None) at the beginning.

    Nothing is awaited between the answer and its return. Raises `ApiError` if
    the coordinator has to be asked and cannot answer.
    """
    if start is None:
        return Beginning(0)
    if isinstance(start, int):
        if not interest.logs:
            return Beginning(0)
        offset, _ = await find_tail(feed, start, log_filter=interest.filter, request_id=request_id)
        return Beginning(offset)
    if start.at_beginning:
        return Beginning(0)
    while digest(feed.core.epoch)[:6] != start.epoch:
        page = await feed.answer(
            feed.reads.tail(
                1,
                through=feed.core.flushed,
                own=ALL,
                generation=feed.core.generation,
                request_id=request_id,
            )
        )
        if digest(page.epoch)[:6] != start.epoch:
            # All of the log that there is now is new to the client.
            return Beginning(0, gap=UNKNOWN_EPOCH)
        await feed.other_log()
    epoch = feed.core.epoch
    seen = None
    if interest.metrics and start.sequence:
        seen = Position(epoch, start.sequence)
        if await why_no_snapshot(feed, seen, request_id=request_id) is not None:
            seen = None
    reason = await why_not_in_log(feed, Position(epoch, start.offset), request_id=request_id)
    if reason == FUTURE_OFFSET:
        return Beginning(feed.core.flushed, seen, gap=reason, gap_from=start.offset + 1)
    if reason is not None:
        return Beginning(0, gap=reason)
    return Beginning(start.offset, seen)
