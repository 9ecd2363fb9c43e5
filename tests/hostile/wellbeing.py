"""What has to be true after a hostile job, whatever it did."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from generated.mindcoordinator.v1.cluster_pb2 import (
    GetClusterStatusRequest,
    ListNodesRequest,
    NodeStatus,
)
from generated.mindcoordinator.v1.evaluations_pb2 import Evaluation, GetEvaluationRequest
from generated.mindcoordinator.v1.jobs_pb2 import Job, ListJobsRequest
from generated.mindcoordinator.v1.queue_pb2 import GetQueueStatusRequest
from generated.mindcoordinator.v1.watch_pb2 import (
    GetJobMetricsRequest,
    GetJobMetricsResponse,
    ListJobLogsRequest,
    LogEntry,
    LogPosition,
    WatchJobResponse,
)
from tests.coordinator.harness import PATIENCE, TERMINAL, Client, status_of
from tests.hostile.machine import HOSTILE, NEIGHBOUR, Machine

#: A job as everybody has.
FINE = 'print("fine")'


@dataclass(frozen=True)
class Answers:
    """What is told of a job."""

    job: Job
    log: list[LogEntry]
    metrics: GetJobMetricsResponse
    evaluation: Evaluation | None

    @property
    def messages(self) -> list[str]:
        """The lines of its log."""
        return [entry.message for entry in self.log]

    def lines(self, *parts: str) -> list[str]:
        """The coordinator's own lines in its log that have all the parts."""
        return [
            entry.message
            for entry in self.log
            if entry.source == "coordinator" and all(part in entry.message for part in parts)
        ]


async def read_everything(
    client: Client, job_id: str, *, listed: Sequence[Job] | None = None
) -> Answers:
    """Make every call that reads, and check that the answers agree. The job must have ended.

    `listed` is what ListJobs told of all jobs after that; it is asked unless given.
    """
    job = await client.job(job_id)
    assert status_of(job) in TERMINAL, job
    if listed is None:
        listed = await list_jobs(client)
    assert [each for each in listed if each.job_id == job_id] == [job]
    log = await read_log(client, job_id)
    watched: list[LogEntry] = []
    last = WatchJobResponse()
    async with asyncio.timeout(PATIENCE):
        async for last in client.watch(job_id):
            watched += last.logs
    assert last.HasField("end")
    assert last.end.status == job.status
    assert last.end.last_offset == len(log)
    assert watched == log
    metrics = await client.call("GetJobMetrics", GetJobMetricsRequest(job_id=job_id))
    evaluation = None
    if job.labels.get("type") == "evaluation":
        evaluation = await client.call("GetEvaluation", GetEvaluationRequest(evaluation_id=job_id))
    await client.call("GetQueueStatus", GetQueueStatusRequest())
    await client.call("GetClusterStatus", GetClusterStatusRequest())
    await client.call("ListNodes", ListNodesRequest())
    return Answers(job, log, metrics, evaluation)


async def list_jobs(client: Client) -> list[Job]:
    """All jobs of a tenant, page by page."""
    jobs: list[Job] = []
    token = ""
    while True:
        page = await client.call("ListJobs", ListJobsRequest(page_size=100, page_token=token))
        jobs += page.jobs
        if not (token := page.next_page_token):
            assert len(jobs) == page.total_count
            return jobs


async def read_log(client: Client, job_id: str) -> list[LogEntry]:
    """The whole log of a job that has ended, page by page."""
    entries: list[LogEntry] = []
    after = None
    while True:
        page = await client.call(
            "ListJobLogs", ListJobLogsRequest(job_id=job_id, after=after, tail=1_000_000)
        )
        assert page.complete
        entries += page.entries
        if page.next_after_offset >= page.last_offset:
            assert [entry.offset for entry in entries] == list(range(1, page.last_offset + 1))
            return entries
        after = LogPosition(epoch=page.epoch, offset=page.next_after_offset)


async def nothing_is_held(client: Client) -> None:
    """Every node is in service, and nothing of it is allocated."""
    nodes = (await client.call("ListNodes", ListNodesRequest(page_size=100))).nodes
    for node in nodes:
        assert node.status == NodeStatus.NODE_STATUS_ONLINE, node
        held = (node.allocated_cpus, node.allocated_gpus, node.allocated_memory_bytes)
        assert held == (0, 0, 0), node
        assert node.running_jobs == 0, node


async def all_is_well(
    machine: Machine, *job_ids: str, tenant: str = HOSTILE, defects: Sequence[str] = ()
) -> list[Answers]:
    """Wait until the jobs have ended, and see that they harmed nobody; what is told of each.

    Then every call that reads answers, nothing of the machine is held, and the next job of this
    tenant and of another one complete. The operators' log has no traceback but of `defects`, parts
    of the lines before.
    """
    async with machine.client(tenant) as client, machine.client(NEIGHBOUR) as neighbour:
        for job_id in job_ids:
            assert status_of(await client.end(job_id)) in TERMINAL
        listed = await list_jobs(client)
        answers = [await read_everything(client, job_id, listed=listed) for job_id in job_ids]
        await nothing_is_held(client)
        following = [(each, await each.submit(FINE)) for each in (client, neighbour)]
        for each, job_id in following:
            job = await each.end(job_id)
            assert status_of(job) == "COMPLETED", job
        await nothing_is_held(neighbour)
    no_defect(machine, defects)
    return answers


def no_defect(machine: Machine, known: Sequence[str] = ()) -> None:
    """The operators' log has no traceback, but behind a line with one of the known texts."""
    lines = machine.log().split("\n")
    for at, line in enumerate(lines):
        if line.startswith("Traceback ") or "exc_info" in line:
            before = "\n".join(lines[max(at - 3, 0) : at])
            assert any(text in before for text in known), "\n".join(lines[max(at - 3, 0) : at + 60])


async def told(machine: Machine, jobs: dict[str, str]) -> dict[str, Answers]:
    """What is told of jobs that have ended, by their ids; `jobs` has the tenant of each."""
    answers = {}
    for tenant in sorted(set(jobs.values())):
        async with machine.client(tenant) as client:
            listed = await list_jobs(client)
            for job_id in (each for each in jobs if jobs[each] == tenant):
                answers[job_id] = await read_everything(client, job_id, listed=listed)
    return answers


async def a_restart_changes_nothing(machine: Machine, jobs: dict[str, str]) -> None:
    """After a clean stop and a start on the same directory all answers are as they were.

    `jobs` has the tenant of each job.
    """
    before = await told(machine, jobs)
    await asyncio.to_thread(machine.restart)
    assert await told(machine, jobs) == before
    async with machine.client() as client:
        await nothing_is_held(client)
        job_id = await client.submit(FINE)
        assert status_of(await client.end(job_id)) == "COMPLETED"
    no_defect(machine)
