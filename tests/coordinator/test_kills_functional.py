"""The coordinator is killed fifty times at random moments, while it is given jobs that train."""

import asyncio
import random
import signal
import textwrap
from pathlib import Path

import grpc

from app.coordinator.storage.job_directory import JobDir
from generated.mindcoordinator.v1.jobs_pb2 import ListJobsRequest, SubmitJobRequest
from generated.mindcoordinator.v1.watch_pb2 import GetJobMetricsRequest
from tests.coordinator.harness import Client, client_of, status_of, submission
from tests.coordinator.nursery import nursery
from tests.coordinator.scripts import COUNTS, counted

KILLS = 50
JOBS = 16
BEGINS = """
    open("trace", "a").write("begun\\n")
"""


class Submitter:
    """Submits jobs until each has been answered for, each under a key of its own."""

    def __init__(self, choose: random.Random) -> None:
        self.open: list[SubmitJobRequest] = []
        self.known: dict[str, int] = {}
        for number in range(JOBS):
            request = submission(name=f"job {number}", idempotency_key=f"key {number}")
            request.training_config.environment["UP_TO"] = str(choose.randrange(50, 400))
            self.open.append(request)

    async def submit_next(self, client: Client) -> None:
        """Submit the next one; the answer may never come."""
        if not self.open:
            return
        request = self.open[0]
        try:
            answer = await client.call("SubmitJob", request)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return
        self.known[answer.job_id] = int(request.training_config.environment["UP_TO"])
        self.open.pop(0)


def put_script(folder: Path) -> None:
    """The script of all jobs, in the tenant's folder."""
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(textwrap.dedent(BEGINS + COUNTS))


async def check_job(client: Client, directory: JobDir, job_id: str, up_to: int) -> None:
    job = await client.end(job_id)
    assert (status_of(job), job.run_count) == ("COMPLETED", 1), job
    assert (directory.work / "trace").read_text() == "begun\n"
    entries = await client.log(job_id)
    assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))
    assert counted(entries) == list(range(1, up_to + 1))
    metrics = await client.call(
        "GetJobMetrics", GetJobMetricsRequest(job_id=job_id, max_points=1000)
    )
    assert [point.step for point in metrics.points] == list(range(1, up_to + 1))
    assert [point.sequence for point in metrics.points] == list(range(1, up_to + 1))


async def test_jobs_survive_fifty_deaths_of_their_coordinator(tmp_path: Path) -> None:
    choose = random.Random(50)
    data, drive = tmp_path / "data", tmp_path / "data/drive"
    submitter = Submitter(choose)
    # Once: written anew, it could be copied for a job while it is empty.
    put_script(drive / "local")
    async with nursery(data) as coordinators:
        for _ in range(KILLS):
            life = await coordinators.life()
            if choose.random() < 0.3:
                # While it starts, or right after.
                await asyncio.sleep(choose.uniform(0, 0.3))
                await life.end(signal.SIGKILL)
                continue
            async with client_of(await life.port(), drive) as client:
                submitting = asyncio.create_task(submitter.submit_next(client))
                await asyncio.sleep(choose.choice([0.0, 0.005, 0.02, 0.1, 0.3, 0.6]))
                await life.end(signal.SIGKILL)
                async with asyncio.timeout(60):
                    await submitting
        life = await coordinators.life()
        async with client_of(await life.port(), drive) as client:
            assert submitter.known, "nothing was submitted while coordinators died"
            while submitter.open:
                await submitter.submit_next(client)
            assert len(submitter.known) == JOBS
            listed = await client.call("ListJobs", ListJobsRequest())
            assert listed.total_count == JOBS, "one was forgotten, or submitted twice"
            for job_id, up_to in submitter.known.items():
                await check_job(client, JobDir(data / "jobs" / job_id), job_id, up_to)
        await life.end(signal.SIGTERM)
