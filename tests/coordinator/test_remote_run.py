"""A run on other machines: what its owner holds is let go of, whenever it is cancelled."""

import asyncio
import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.coordinator.engines.remote import remote_run
from app.coordinator.engines.remote.records import writer
from app.coordinator.engines.remote.records.loops import RecordLoops
from app.coordinator.engines.remote.remote_run import RemoteRun
from app.coordinator.storage.job_directory import JobDir

PATIENCE = 60


async def test_records_that_open_after_a_cancellation_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    opening, closed = asyncio.Event(), asyncio.Event()
    lock_is_free = threading.Event()

    class Records:
        """Opens once the job's lock is free."""

        def __init__(self, *_: object, **__: object) -> None:
            loop.call_soon_threadsafe(opening.set)
            assert lock_is_free.wait(PATIENCE)

        def close(self) -> None:
            closed.set()

    monkeypatch.setattr(remote_run, "read_end", lambda _: None)
    monkeypatch.setattr(remote_run, "read_launch", lambda _: SimpleNamespace(node_ids=("a",)))
    monkeypatch.setattr(writer, "MergedRecords", Records)
    with closing(RecordLoops()) as loops:
        others: dict[str, Any] = dict.fromkeys(
            ("leadership", "bounds", "client", "nodes", "sends_secrets", "grew", "forget"),
            cast(Any, None),
        )
        run = RemoteRun(
            JobDir(tmp_path).run(1), term=1, lost_node_patience=1.0, loops=loops, **others
        )
        waiting = asyncio.create_task(run.wait(), name="run")
        async with asyncio.timeout(PATIENCE):
            await opening.wait()
            waiting.cancel()
            await asyncio.wait([waiting])
            lock_is_free.set()
            await closed.wait()
    assert waiting.cancelled()
