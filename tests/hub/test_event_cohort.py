"""What a step of a cohort tells the pacer."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from app.hub.events.cohort import Cohort, CohortTable
from app.hub.selection.reader import Reader


async def test_all_events_of_a_step_count_as_demand() -> None:
    recorded: list[int] = []
    pacer = SimpleNamespace(
        interval=0.001,
        record=lambda spent, now, *, cpu, entries=1: recorded.append(entries),
    )
    table = SimpleNamespace(
        settings=SimpleNamespace(events_patience=60.0),
        observer=SimpleNamespace(delivered=lambda kind, size: None),
        pacer=pacer,
        loop=asyncio.get_running_loop(),
        cohorts={},
        heads={},
    )
    reader = SimpleNamespace(next=lambda now: b"event: log\ndata: {}\n\n" * 12)

    def ignore(_: Any) -> None:
        return

    cohort = Cohort(
        "key",
        cast(Reader, reader),
        table=cast(CohortTable, table),
        chunked=True,
        gzip=False,
        enter=ignore,
        on_empty=ignore,
    )
    cohort.step()
    assert recorded == [12]
