"""The coordinator as a program: what a stop ends, and what it waits for."""

import asyncio
from typing import cast

import pytest

from app.coordinator.program import _run
from app.coordinator.server import Coordinator

PATIENCE = 60


class SlowStart:
    """A coordinator whose start goes on until it is let go on."""

    def __init__(self, *, leads: bool) -> None:
        self.leads = leads
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.seen: list[str] = []

    async def __aenter__(self) -> "SlowStart":
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise
        self.seen.append("started")
        return self

    async def close(self) -> None:
        self.seen.append("closed")


@pytest.mark.parametrize(("leads", "seen"), [(True, ["started", "closed"]), (False, ["cancelled"])])
async def test_a_stop_cancels_a_start_only_before_the_coordinator_leads(
    leads: bool, seen: list[str]
) -> None:
    coordinator, stop = SlowStart(leads=leads), asyncio.Event()
    running = asyncio.create_task(_run(cast(Coordinator, coordinator), stop), name="program")
    await coordinator.begun.wait()
    stop.set()
    # A stop that cancelled the start would have done so within these turns of the loop.
    for _ in range(10):
        await asyncio.sleep(0)
    if leads:
        coordinator.go_on.set()
    async with asyncio.timeout(PATIENCE):
        await running
    assert coordinator.seen == seen
