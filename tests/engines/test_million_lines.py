"""A run that says a million lines is taken over as a short one is: none is lost or doubled."""

import asyncio
import resource
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog

from app.coordinator.engines.agent.agent import RunAgent
from app.coordinator.engines.agent.records_server import RecordsServer
from app.coordinator.engines.local.runner.recording import RecordBounds
from app.coordinator.engines.remote.agent_faults import AgentFaults
from app.coordinator.engines.remote.following import GangFollower
from app.coordinator.engines.remote.gang import Gang, StopOrder
from app.coordinator.engines.remote.records.merging import MergedRecords
from app.coordinator.logs import log as logs
from app.coordinator.logs import run_starts
from app.coordinator.logs.log import LogReader, LogWriter
from app.coordinator.metrics.snapshots import MetricsReader, MetricsWriter
from app.coordinator.scheduling.transitions import RunEnd
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.records import Cursor
from generated.mindcoordinator.internal.v1 import engine_pb2 as pb
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, MetricsSnapshot
from tests.engines.test_bad_messages import Written

log = structlog.get_logger("tests")
PATIENCE = 600
SNAPSHOTS = 50


def made(job: JobDir) -> JobDir:
    """A job without records."""
    job.path.mkdir(parents=True)
    job.lock.touch()
    logs.create(job.log)
    run_starts.create(job.log)
    MetricsWriter(job.metrics).close()
    return job


def record(job: JobDir, lines: int) -> None:
    """Have a node's records be there."""
    with closing(LogWriter(job.log)) as log, closing(MetricsWriter(job.metrics)) as metrics:
        for first in range(0, lines, 1000):
            log.append(
                [LogEntry(message=f"line {number}") for number in range(first, first + 1000)]
            )
            metrics.append([MetricsSnapshot(step=first + each) for each in range(SNAPSHOTS)])


@pytest.mark.parametrize("lines", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
async def test_however_many_lines_each_is_taken_over_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: int,
) -> None:
    settings: Any = SimpleNamespace(records=tmp_path / "node")
    agent = RunAgent(settings, job_id="a", run=1, keeper={})
    node, own = made(agent._job), made(JobDir(tmp_path / "own"))
    await asyncio.to_thread(record, node, lines)
    own.run(1).path.mkdir(parents=True)

    async def found(term: int) -> object:
        return object()

    async def ended() -> RunEnd:
        return RunEnd(exit_code=0)

    monkeypatch.setattr(agent, "_found", found)
    agent._waiting = asyncio.create_task(ended(), name="a run that is over")
    server = RecordsServer(agent, host="127.0.0.1", job_id="a", run=1)
    await server.start()

    class Cluster:
        """Has the agent."""

        faults = AgentFaults(changed=lambda: None)

        async def open_run(self, run: pb.RunRef) -> pb.OpenRunResponse:
            return pb.OpenRunResponse(agent_address=server.address, agent_secret=server.secret)

    launched = SimpleNamespace(
        whole=SimpleNamespace(job=SimpleNamespace(job_id="a")),
        node_ids=("n",),
        ref=lambda node_id, *, term: pb.RunRef(job_id="a", run=1, node_id=node_id, term=term),
    )
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    try:
        with closing(MergedRecords(own.run(1), "n", bounds=RecordBounds())) as records:
            cluster = cast(Any, Cluster())
            gang = Gang(
                launched=cast(Any, launched),
                term=1,
                client=cluster,
                nodes=cluster,
                lost_node_patience=PATIENCE,
                records=cast(Any, Written(records)),
                stop=StopOrder(),
            )
            async with asyncio.timeout(PATIENCE):
                assert await GangFollower(gang).follow() == RunEnd(exit_code=0)
    finally:
        await server.close()
        await agent.close()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    took = time.monotonic() - began
    log.info("taken_over", lines=lines, seconds=round(took, 2), kib=grown)
    # What is held does not grow with the number of lines.
    assert grown < 64 * 1024
    # Taken up anew, as by another coordinator.
    with closing(MergedRecords(own.run(1), "n", bounds=RecordBounds())) as records:
        assert records.taken(0) == (lines, lines // 1000 * SNAPSHOTS)
    with LogReader(own.log) as reader:
        at = 0
        for piece in reader.slices(Cursor(), limit=1000):
            for entry in logs._entries(piece):
                assert (entry.offset, entry.message) == (at + 1, f"line {at}")
                at += 1
    assert at == lines
    with MetricsReader(own.metrics) as metrics:
        assert metrics.last() == lines // 1000 * SNAPSHOTS
