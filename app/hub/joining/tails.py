"""Where a tail begins: the newest entries that pass a watcher's filter.

The history knows it, or else the coordinator. Of a filter that judges more than the
level, entries are looked at from the newest on, and behind the history for as long as
the coordinator finds any: a page of it ends where 64 MiB of the log were scanned.
"""

from typing import Final

from app.hub.core.judging import Judging, judging_of
from app.hub.feed import Feed
from app.hub.upstream import LogPage
from app.log_filter import LogFilter

#: Entries of a page that is read backward; the contract allows no more.
MOST_ENTRIES: Final = 10_000


async def find_tail(
    feed: Feed, count: int, *, log_filter: LogFilter, request_id: str
) -> tuple[int, LogPage | None]:
    """Return the offset before the `count` newest entries that pass, and their first page if it
    had to be read and shows all of them.

    What is found out stays known while somebody holds the filter. Raises `ApiError` if the
    coordinator has to be asked and cannot answer.
    """
    core = feed.core
    judged = count > 0 and judging_of(log_filter) is not Judging.BY_LEVEL
    core.hold_filter(log_filter)
    try:
        if not judged:
            offset = core.find_tail(count, log_filter)
        elif (offset := await _judge_history(feed, log_filter, count)) is None:
            offset = await _look_back(feed, log_filter, count, request_id=request_id)
    finally:
        core.drop_filter(log_filter)
    if offset is not None:
        return offset, None
    # What an older coordinator counts are the entries of the level.
    by_level = LogFilter(min_level=log_filter.min_level)
    page = await _read_tail(feed, by_level, count, request_id=request_id)
    return _begin(feed, by_level, page, count), None if judged else page


async def _judge_history(feed: Feed, own: LogFilter, count: int) -> int | None:
    """Return the offset before the tail, if the history has all of it.

    It is judged from its newest entry on until enough of them pass.
    """
    core = feed.core
    upto, generation = core.flushed, core.generation
    while True:
        if core.generation != generation:
            upto, generation = core.flushed, core.generation
        if (offset := core.find_tail(count, own, upto=upto)) is not None:
            return offset
        if not (entries := core.newest_unjudged(own, upto)):
            return None
        said = await feed.answer(feed.reads.verdicts(own, entries, generation=generation))
        core.take_verdicts(own, generation, said)


async def _look_back(feed: Feed, own: LogFilter, count: int, *, request_id: str) -> int | None:
    """Return the offset before the tail, as the coordinator finds it.

    None if it cannot read a log backward.
    """
    core = feed.core
    before, wanted, generation = core.flushed + 1, count, core.generation
    while wanted and before > 1:
        read = feed.reads.before(
            before,
            limit=min(wanted, MOST_ENTRIES),
            own=own,
            generation=generation,
            request_id=request_id,
        )
        page = await feed.answer(read)
        if core.generation != generation or page.epoch != core.epoch:
            if core.generation == generation:
                await feed.other_log()
            before, wanted, generation = core.flushed + 1, count, core.generation
            continue
        if not page.next_before:
            return None
        passing = [
            record.offset
            for record, passed in zip(page.records, page.verdicts or (), strict=True)
            if passed
        ]
        wanted -= len(passing)
        before = passing[0] if passing and wanted <= 0 else page.next_before
        if not page.records:
            break
    return max(before, 1) - 1


async def _read_tail(feed: Feed, by_level: LogFilter, count: int, *, request_id: str) -> LogPage:
    """Read the first page of the tail, of the log that the feed has.

    Where the coordinator has another log by now, the feed has to learn of it first.
    """
    core = feed.core
    while True:
        generation = core.generation
        read = feed.reads.tail(
            count,
            through=core.flushed,
            own=by_level,
            generation=generation,
            request_id=request_id,
        )
        page = await feed.answer(read)
        if core.generation != generation:
            continue
        if page.epoch == core.epoch:
            return page
        await feed.other_log()


def _begin(feed: Feed, by_level: LogFilter, page: LogPage, count: int) -> int:
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
    if by_level.passes_all:
        begin = min(begin, max(flushed - count, oldest))
    return begin
