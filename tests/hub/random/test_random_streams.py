"""Whatever happens to a log, its stream, its pages and its watchers: each gets what it must get.

Two replicas stand in front of a coordinator that loses entries, drops old ones, answers late, in
part or not at all, and whose streams break or leave entries out. Clients of all kinds come and go,
read slowly or not at all, and come back with their last id, to whichever replica. Each of them
checks every event that it gets against the log (`client.py`).
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from app.errors import ApiError
from app.hub.core.forms import FormName
from app.hub.hub import Hub
from app.hub.settings import HubSettings
from app.hub.upstream import JobKey
from app.log_filter import LogFilter
from app.tasks.turns import Turns
from tests.hub.random.client import Client, Wish
from tests.hub.random.upstream import RandomUpstream

KEYS = (JobKey("acme", "job-1"), JobKey("bolt", "job-1"))
FILTERS = (
    LogFilter(),
    LogFilter(),
    LogFilter(min_level=2),
    LogFilter(min_level=4),
    LogFilter(contains=" a"),
    LogFilter(min_level=2, matches="[bc]x"),
)
SETTINGS = HubSettings(
    history_bytes=6_000,
    history_bytes_total=9_000,
    history_tail=30,
    slice_bytes=700,
    compression="gzip",
    linger=0.005,
    keepalive_interval=0.01,
    bookmark_interval=0.01,
    flush_min=0.0005,
    reconnect_min=0.001,
    reconnect_max=0.01,
    message_timeout=0.3,
    outage_limit=600,
    max_filters_per_user=100,
    max_filters_per_job=100,
)
MIB = 1024 * 1024


class QuickHub(Hub):
    """Looks after quiet streams all the time."""

    SWEEP = 0.005


class World:
    """The coordinator, two replicas and the clients of one test."""

    STEPS = 150

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.turns = Turns()
        self.upstream = RandomUpstream(rng, turns=self.turns, far=rng.random() < 0.2)
        self.upstream.failing = rng.choice((0, 0, 10, 50))
        # Of a log that loses its end, ids of before may mean other entries.
        self.cuts_off = rng.random() < 0.2
        self.huge = rng.random() < 0.1
        settings = replace(SETTINGS, history_tail=rng.choice((0, 5, 30)))
        self.hubs = [self._hub(settings) for _ in range(2)]
        self.clients: list[Client] = []
        self.joining: list[asyncio.Task[None]] = []
        self.joins: set[Client] = set()

    def _hub(self, settings: HubSettings) -> Hub:
        nobody = cast(Any, None)
        return QuickHub(
            upstream=self.upstream,
            states=nobody,
            searcher=nobody,
            settings=settings,
            turns=self.turns,
        )

    # Steps

    async def run(self) -> None:
        """Take all steps, then have everything answer, and everybody read to the end."""
        rng = self.rng
        steps: list[tuple[Callable[[], None], int]] = [
            (self._grow, 12),
            (self._join, 8),
            (self._read, 20),
            (self._leave, 5),
            (self._come_back, 5),
            (self._break, 3),
            (self._leave_out, 3),
            (self._lose, 2),
            (self._drop_oldest, 2),
            (self._evict, 3),
            (self._outage, 1),
            (self._end_or_begin_anew, 1),
        ]
        kinds, weights = zip(*steps, strict=True)
        for _ in range(self.STEPS):
            [step] = rng.choices(kinds, weights)
            step()
            for _ in range(rng.choice((0, 0, 1, 3, 30))):
                await asyncio.sleep(0)
            if rng.random() < 0.1:
                await asyncio.sleep(0.002)
        await self._finish()

    async def _finish(self) -> None:
        upstream = self.upstream
        upstream.calm, upstream.down = True, False
        for key in KEYS:
            upstream.job(key).ended = True
            upstream.job(key).note()
        async with asyncio.timeout(60):
            await asyncio.gather(*self.joining)
            await asyncio.gather(*map(self._read_on, self.clients))

    async def _read_on(self, client: Client) -> None:
        """Read to the end of the log, over as many connections as it takes."""
        while not client.over:
            if not client.connected:
                await self._connect(client)
            await client.until_over()
            if not client.over:
                await asyncio.sleep(0.005)
        client.disconnect()

    async def close(self) -> None:
        for task in self.joining:
            task.cancel()
        await asyncio.gather(*self.joining, return_exceptions=True)
        for client in self.clients:
            client.disconnect()
        for hub in self.hubs:
            await hub.close()

    def _key(self) -> JobKey:
        return self.rng.choice(KEYS)

    def _grow(self) -> None:
        rng = self.rng

        def size() -> int:
            if self.huge and rng.random() < 0.01:
                return MIB - 100
            return rng.choice((1, 10, 10, 60, 300)) if rng.random() < 0.95 else 2_000

        self.upstream.grow(self._key(), rng.choice((1, 5, 60)), size)

    def _join(self) -> None:
        rng = self.rng
        form = rng.choice((FormName.SSE, FormName.SSE, FormName.NDJSON))
        wish = Wish(
            key=self._key(),
            filter=rng.choice(FILTERS),
            form=form,
            chunked=rng.random() < 0.7,
            gzip=form is FormName.SSE and rng.random() < 0.5,
            tail=rng.choice((0, 1, 10, 1000)),
            share=rng.random() if rng.random() < 0.5 else None,
            follow=rng.random() < 0.85,
        )
        client = Client(wish, self.upstream)
        self.clients.append(client)
        self._have_join(client)

    def _have_join(self, client: Client) -> None:
        self.joins.add(client)
        self.joining.append(asyncio.create_task(self._connect(client)))

    async def _connect(self, client: Client) -> None:
        try:
            hub = self.rng.choice(self.hubs)
            await client.connect(hub, send_buffer=self.rng.choice((4_096, 4_096, 200_000)))
        except ApiError as error:
            if not error.kind.retryable:
                raise
        finally:
            self.joins.discard(client)

    def _some_clients(self, *, connected: bool) -> list[Client]:
        some = [
            each
            for each in self.clients
            if each.connected is connected and not each.over and each not in self.joins
        ]
        return self.rng.sample(some, min(len(some), 3))

    def _read(self) -> None:
        for client in self._some_clients(connected=True):
            client.read(self.rng.choice((1, 100, 5_000, 1_000_000)))

    def _leave(self) -> None:
        for client in self._some_clients(connected=True)[:1]:
            client.disconnect()

    def _come_back(self) -> None:
        for client in self._some_clients(connected=False)[:2]:
            self._have_join(client)

    def _break(self) -> None:
        self.upstream.break_streams(self._key())

    def _leave_out(self) -> None:
        self.upstream.job(self._key()).leave_out = self.rng.randint(1, 8)

    def _lose(self) -> None:
        log = self.upstream.job(self._key()).log
        if log.last > log.base:
            begin = self.rng.randint(log.base + 1, log.last)
            log.lost.update(range(begin, min(begin + self.rng.randint(1, 6), log.last + 1)))

    def _drop_oldest(self) -> None:
        log = self.upstream.job(self._key()).log
        log.first = min(log.first + self.rng.randint(1, 60), log.last + 1)

    def _evict(self) -> None:
        for feed in self.rng.choice(self.hubs)._feeds._feeds.values():
            feed.evict_oldest()

    def _outage(self) -> None:
        self.upstream.down = not self.upstream.down
        for key in KEYS:
            self.upstream.break_streams(key)

    def _end_or_begin_anew(self) -> None:
        key = self._key()
        if self.cuts_off:
            self.upstream.cut_off(key, self.rng.randint(1, 30))
        elif self.rng.random() < 0.7:
            self.upstream.begin_anew(key)
        else:
            self.upstream.job(key).ended = True
            self.upstream.job(key).note()


async def streams(seed: int) -> None:
    world = World(seed)
    try:
        await world.run()
    finally:
        await world.close()


@pytest.mark.parametrize("seed", range(8))
async def test_each_watcher_gets_every_entry_once_or_is_told(seed: int) -> None:
    await streams(seed)


@pytest.mark.slow
async def test_each_watcher_gets_every_entry_once_or_is_told_in_many_runs() -> None:
    for seed in range(8, 500):
        await streams(seed)
