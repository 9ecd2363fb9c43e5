"""A job's channel in a stream over many jobs: what was read and not delivered yet."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from app.errors import COORDINATOR_UNAVAILABLE, ApiError
from app.hub.core.cursors import Cursor
from app.hub.core.feed_core import FeedCore
from app.hub.events.job_channel import JobChannel
from app.hub.events.starting import Beginning
from app.hub.feed import Feed
from app.hub.selection.places import LogPlace
from app.hub.selection.selection import Interest, Selection
from app.hub.settings import HubSettings
from app.hub.upstream import JobKey, LogPage, LogRecord, Start
from app.log_filter import LogFilter

LAST = 300


class Source:
    """Has no feeds: the channel is given its own."""

    def feed(self, job_id: str) -> Feed:
        raise ApiError(COORDINATOR_UNAVAILABLE)

    def count_filter(self, job_id: str, log_filter: LogFilter) -> Callable[[], None]:
        return lambda: None


@pytest.fixture
def feed() -> Feed:
    """A feed whose history begins behind the entries of the page."""
    core = FeedCore[Cursor](history_bytes=1 << 20, slice_bytes=1 << 16)
    core.start(Start("e1", after_offset=LAST, first_offset=1, last_offset=LAST, status="TRAINING"))
    return cast(
        Feed,
        SimpleNamespace(
            core=core,
            key=JobKey("t", "j"),
            settings=HubSettings(slice_bytes=1024),
            listeners={},
            failure=None,
            release=lambda: None,
            reads=SimpleNamespace(after=lambda *_, **__: asyncio.Future[LogPage]()),
        ),
    )


@pytest.fixture
def page() -> LogPage:
    records = [LogRecord(n, 2, b'{"offset":%d}' % n) for n in range(1, LAST + 1)]
    return LogPage("e1", records, LAST, 1, LAST)


def opened(feed: Feed) -> JobChannel:
    channel = JobChannel(
        "j",
        interest=Interest(selection=Selection(), logs=True),
        start=LogPlace(b"", 0),
        source=Source(),
        request_id="r",
    )
    channel._begin(feed, Beginning(offset=0))
    return channel


def delivered(events: Sequence[bytes]) -> list[int]:
    text = b"".join(events)
    return [int(each.partition(b"}")[0]) for each in text.split(b'"offset":')[1:]]


async def test_a_page_is_delivered_part_by_part(feed: Feed, page: LogPage) -> None:
    channel = opened(feed)
    assert channel.on_page(page)
    events = []
    while piece := channel.next(1 << 16, 0.0, pass_over=False):
        events.append(piece)
    assert len(events) > 2
    assert delivered(events) == list(range(1, LAST + 1))
    channel.close()


async def test_what_was_not_delivered_when_its_feed_was_lost_is_read_again_once(
    feed: Feed, page: LogPage
) -> None:
    channel = opened(feed)
    channel.on_page(page)
    events = [channel.next(1 << 16, 0.0, pass_over=False)]
    # What comes next was read, too.
    channel.on_page(replace(page, records=page.records[len(delivered(events)) :]))
    channel.on_lost(ApiError(COORDINATOR_UNAVAILABLE))
    place = channel.place
    assert place is not None
    assert place.offset == len(delivered(events))
    channel._begin(feed, Beginning(offset=place.offset))
    assert channel.next(1 << 16, 0.0, pass_over=False) == b""
    channel.on_page(replace(page, records=page.records[place.offset :]))
    while piece := channel.next(1 << 16, 0.0, pass_over=False):
        events.append(piece)
    assert delivered(events) == list(range(1, LAST + 1))
    channel.close()
