"""Where the newest entries of a log begin."""

from app.hub.core.cursors import ALL
from app.hub.feed import Feed
from app.hub.upstream import LogPage


async def find_tail(
    feed: Feed, count: int, *, level: int, request_id: str
) -> tuple[int, LogPage | None]:
    """Return the offset before the `count` newest entries that pass, and their first page if it
    had to be read.

    Raises `ApiError` if the coordinator has to be asked and cannot answer.
    """
    offset = feed.core.find_tail(count, level)
    if offset is not None:
        return offset, None
    page = await _read_tail(feed, count, level=level, request_id=request_id)
    return _begin(feed, page, count, level=level), page


def _begin(feed: Feed, page: LogPage, count: int, *, level: int) -> int:
    """Return the offset before a tail, given its first page.

    What the log has lost right before the first entry belongs to the tail:
    there may have been entries that pass.
    """
    flushed, oldest = feed.core.flushed, max(page.first_offset - 1, 0)
    if len(page.records) < count and page.next_after >= flushed:
        # That is all there is.
        return oldest
    begin = page.next_after
    if page.records:
        begin = page.records[0].offset - 1
    if page.missing:
        begin = min(begin, page.missing[0][0] - 1)
    if level == ALL:
        begin = min(begin, max(flushed - count, oldest))
    return begin


async def _read_tail(feed: Feed, count: int, *, level: int, request_id: str) -> LogPage:
    """Read the first page of the tail, of the log that the feed has.

    Where the coordinator has another log by now, the feed has to learn of it first.
    """
    while True:
        page = await feed.answer(
            feed.reads.tail(count, through=feed.core.flushed, level=level, request_id=request_id)
        )
        if page.epoch == feed.core.epoch:
            return page
        await feed.other_log()
