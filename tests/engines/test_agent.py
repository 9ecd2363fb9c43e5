"""An agent that is closed reads nothing any more."""

import asyncio
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.coordinator.engines.agent.agent import RunAgent
from app.coordinator.logs import log as logs
from app.coordinator.logs.log import LogWriter
from app.coordinator.metrics.snapshots import MetricsWriter
from app.coordinator.storage.job_directory import JobDir
from generated.mindcoordinator.v1.watch_pb2 import LogEntry

PATIENCE = 60


async def test_whoever_waits_for_lines_of_an_agent_that_is_closed_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has its descriptors by then is not taken for the run's log."""
    settings = SimpleNamespace(records=tmp_path)
    agent = RunAgent(cast(Any, settings), job_id="a", run=1, keeper={})
    job = JobDir(tmp_path / "a" / "1" / "jobs" / "a")
    logs.create(job.log)
    MetricsWriter(job.metrics).close()

    async def found(term: int) -> object:
        return object()

    monkeypatch.setattr(agent, "_found", found)
    read = agent.records(term=1, epoch="", after_line=0, after_snapshot=0, patience=PATIENCE)
    waiting = asyncio.create_task(read, name="waits for lines")
    async with asyncio.timeout(PATIENCE):
        while agent._reader is None:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0)
        await agent.close()
        with closing(LogWriter(job.log)) as writer:
            writer.append([LogEntry(message="late")])
            agent._news.set()
            with pytest.raises(OSError, match="closed"):
                await waiting
