"""Two thousand clients of the stream over many jobs come and go: nothing of them stays."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.hub.conftest import gateway_to
from tests.hub.states_coordinator import StatesCoordinator, tells_states
from tests.hub.test_events_functional import until

CLIENTS = 2000
AT_ONCE = 100
JOBS = 30
QUERIES: tuple[dict[str, Any], ...] = (
    {},
    {"include": "jobs,logs"},
    {"label": "team=1", "include": "jobs,logs", "contains": "x"},
    {"job_id": "j1&job_id=j2", "include": "jobs,logs,metrics"},
    {"label": "team=2"},
)


async def traffic(states: StatesCoordinator, rng: random.Random) -> None:
    """Have all jobs print, and some change, without end."""
    while True:
        job = f"j{rng.randrange(JOBS)}"
        await states.log(*["x" * 100] * 5, job=job)
        if rng.random() < 0.2:
            await states.set_state(job, message=str(rng.random()))
        await asyncio.sleep(0.01)


def picked(rng: random.Random) -> Iterator[tuple[dict[str, Any], int]]:
    """What each client asks for, and how many bookmarks it stays for."""
    for _ in range(CLIENTS):
        yield rng.choice(QUERIES), rng.randrange(3)


@pytest.mark.slow
async def test_clients_that_come_and_go_leave_nothing_behind() -> None:
    rng = random.Random(5)
    async with tells_states() as states:
        for number in range(JOBS):
            await states.set_state(f"j{number}", labels={"team": str(number % 3)})
        async with gateway_to(states.address, linger=0.2) as gateway:

            async def client(query: dict[str, Any], stays: int) -> None:
                async with gateway.watch("events", **query) as watching:
                    assert watching.status == 200, watching.error
                    for _ in range(stays):
                        await until(watching, "bookmark")

            busy = asyncio.create_task(traffic(states, rng), name="traffic")
            clients = list(picked(rng))
            for start in range(0, CLIENTS, AT_ONCE):
                some = clients[start : start + AT_ONCE]
                await asyncio.gather(*(client(query, stays) for query, stays in some))
            busy.cancel()
            with suppress(asyncio.CancelledError):
                await busy
            async with asyncio.timeout(60):
                # Whatever lingers, ends.
                await states.until_states(0)
                await states.until_watches(0)
            hub = gateway.hub
            assert not hub.events._table.cohorts
            assert not hub.events._table.heads
            assert not hub._feeds._feeds
            assert not hub._limits._counts
            assert not hub._filters._counts
