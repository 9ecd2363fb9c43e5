"""A log that lost its newest entries and grew anew has other entries at the same places."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from typing_extensions import override

from app.caller import Caller
from app.hub.core.forms import FormName
from app.hub.hub import Hub
from app.hub.log_watcher import LogWatcher
from app.hub.observer import HubObserver
from app.hub.settings import HubSettings
from app.hub.upstream import JobKey, LogPage
from app.log_filter import LogFilter
from app.tasks.turns import Turns
from generated.mindcoordinator.v1.watch_pb2 import ListJobLogsRequest
from tests.hub.random.upstream import RandomUpstream

KEY = JobKey("acme", "job-1")
SETTINGS = HubSettings(history_tail=5, reconnect_min=0.01, reconnect_max=0.01)


class HeldUpstream(RandomUpstream):
    """Its pages arrive when they are let go, as the log was when they were asked for."""

    def __init__(self) -> None:
        super().__init__(random.Random(1), turns=Turns(), far=False)
        self.calm = True
        self.asked = asyncio.Event()
        self.let_go = asyncio.Event()

    @override
    async def _page(
        self, key: JobKey, request: ListJobLogsRequest, log_filter: LogFilter
    ) -> LogPage:
        page = await super()._page(key, request, log_filter)
        self.asked.set()
        await self.let_go.wait()
        return page


class Rewound(HubObserver):
    """Waits until a feed has noticed that its log was cut off."""

    def __init__(self) -> None:
        self.noticed = asyncio.Event()

    @override
    def upstream_anomaly(self, kind: str) -> None:
        if kind == "rewound":
            self.noticed.set()


@pytest.fixture
async def rewound() -> Rewound:
    return Rewound()


@pytest.fixture
async def upstream() -> HeldUpstream:
    return HeldUpstream()


@pytest.fixture
async def hub(upstream: HeldUpstream, rewound: Rewound) -> AsyncIterator[Hub]:
    nobody = cast(Any, None)
    made = Hub(
        upstream=upstream, states=nobody, searcher=nobody, settings=SETTINGS, observer=rewound
    )
    yield made
    upstream.let_go.set()
    for connection in list(made.streams):
        connection.abandon()
    await made.close()


async def watch(hub: Hub, *, tail: int) -> LogWatcher:
    watcher = await hub.watch_logs(
        Caller(KEY.tenant_id, "ann"),
        KEY.job_id,
        log_filter=LogFilter(min_level=2),
        form=FormName.SSE,
        chunked=False,
        tail=tail,
        after=None,
        first=None,
        follow=True,
    )
    assert watcher is not None
    return watcher


async def test_a_tail_that_is_read_meanwhile_is_one_of_what_there_is_then(
    hub: Hub, upstream: HeldUpstream, rewound: Rewound
) -> None:
    upstream.grow(KEY, 100, lambda: 1)
    await watch(hub, tail=0)
    joining = asyncio.create_task(watch(hub, tail=20))
    async with asyncio.timeout(60):
        await upstream.asked.wait()
        upstream.cut_off(KEY, 60)
        await rewound.noticed.wait()
        upstream.let_go.set()
        late = await joining
    assert late.feed.core.last == 40
    assert late.offset < 40


async def test_a_page_that_was_asked_for_before_is_not_shared_by_who_asks_behind_it(
    hub: Hub, upstream: HeldUpstream, rewound: Rewound
) -> None:
    upstream.grow(KEY, 100, lambda: 1)
    early = await watch(hub, tail=0)
    core, reads = early.feed.core, early.feed.reads

    def read() -> "asyncio.Task[LogPage]":
        position = core.position
        assert position is not None
        return reads.after(
            position._replace(offset=10),
            through=100,
            asked=LogFilter(),
            own=LogFilter(),
            generation=core.generation,
            request_id="",
        )

    before = read()
    async with asyncio.timeout(60):
        await upstream.asked.wait()
        upstream.cut_off(KEY, 60)
        await rewound.noticed.wait()
        upstream.grow(KEY, 60, lambda: 1)
        behind = read()
        upstream.let_go.set()
        old, new = await asyncio.gather(before, behind)
    log = upstream.job(KEY).log
    assert old.epoch == new.epoch
    for page, entries in zip((old, new), log.versions, strict=True):
        tokens = [entry.token.encode() for entry in entries[10:]]
        assert len(page.records) == len(tokens)
        assert all(map(bytes.__contains__, (each.data for each in page.records), tokens))
