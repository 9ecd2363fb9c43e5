"""Jobs that are large in every respect: what is told of them is small, and others do not wait."""

import base64
import signal
import time

import grpc
import orjson
import psutil
import pytest

from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest, ListJobsRequest
from tests.coordinator.harness import Client, status_of
from tests.coordinator.scripts import WAITS
from tests.hostile.cases import script
from tests.hostile.machine import NEIGHBOUR, Machine
from tests.hostile.old_data import runner_of
from tests.hostile.wellbeing import FINE, all_is_well, list_jobs

_MIB = 1024 * 1024


async def test_jobs_with_large_submissions_can_be_listed(machine: Machine) -> None:
    """All of them together are more than one answer may have."""
    tenant = "large"
    large = {f"X{number}": "x" * 8_000 for number in range(30)}
    tomorrow = {"seconds": int(time.time()) + 86_400}
    async with machine.client(tenant) as client:
        jobs = [
            await client.submit(
                FINE,
                training_config={"hyperparameters": large},
                scheduling_config={"not_before": tomorrow},
            )
            for _ in range(75)
        ]
        assert {job.job_id for job in await list_jobs(client)} == set(jobs)
        for job_id in jobs:
            await client.call("CancelJob", CancelJobRequest(job_id=job_id))
    await all_is_well(machine, jobs[0], tenant=tenant)


async def test_a_submission_that_is_too_large_to_be_told_is_refused(machine: Machine) -> None:
    large = {f"X{number}": "x" * 30_000 for number in range(30)}
    async with machine.client() as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.submit(FINE, training_config={"environment": large})
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "bytes" in str(caught.value.details())


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1, 10**400])
async def test_a_page_token_with_a_number_that_no_database_takes(
    machine: Machine, number: int
) -> None:
    async with machine.client("pages") as client:
        for _ in range(2):
            await client.end(await client.submit(FINE))
        page = await client.call("ListJobs", ListJobsRequest(page_size=1))
        parts = orjson.loads(base64.urlsafe_b64decode(page.next_page_token + "==="))
        text = orjson.dumps([parts[0], "NUMBER", *parts[2:]]).replace(
            b'"NUMBER"', str(number).encode()
        )
        token = base64.urlsafe_b64encode(text).decode().rstrip("=")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("ListJobs", ListJobsRequest(page_size=1, page_token=token))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_job_that_may_run_for_ever_holds_up_nobody(machine: Machine) -> None:
    """Neither while it runs, nor while it waits: what comes behind it can be submitted."""

    async def for_ever(client: Client) -> list[str]:
        try:
            return [
                await client.submit(
                    WAITS,
                    resource_config={"cpu_count": 4},
                    scheduling_config={"max_runtime_seconds": 2**63 - 1},
                )
            ]
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT  # noqa: PT017
            return []

    async with machine.client() as client, machine.client(NEIGHBOUR) as neighbour:
        jobs = await for_ever(client)
        jobs.append(await client.submit(WAITS, resource_config={"cpu_count": 4}))
        jobs += await for_ever(client)
        waiting = await neighbour.submit(FINE, resource_config={"cpu_count": 4})
        for job_id in jobs:
            await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        assert status_of(await neighbour.end(waiting)) == "COMPLETED"
    await all_is_well(machine, *jobs)


async def test_a_line_of_300_mib_that_a_killed_runner_had_not_read(machine: Machine) -> None:
    assert machine.process is not None
    coordinator = psutil.Process(machine.process.pid)
    async with machine.client() as client:
        job_id = await client.submit(
            script(
                """
import time
with open(M, "wb") as file:
    file.write(b'{"step": 1, "loss": 0.5}\\n')
    for _ in range(300):
        file.write(b"x" * 1024 * 1024)
print("ready", flush=True)
time.sleep(600)
"""
            )
        )
        await client.until_line(job_id, "ready")
        before = coordinator.memory_info().rss
        psutil.Process(runner_of(machine.path, job_id)).send_signal(signal.SIGKILL)
        job = await client.end(job_id)
    assert status_of(job) == "FAILED"
    peak = _peak(coordinator.pid)
    assert peak - before < 100 * _MIB, f"from {before // _MIB} to {peak // _MIB} MiB"
    await all_is_well(machine, job_id)


def _peak(pid: int) -> int:
    """The most memory that a process had so far, in bytes."""
    with open(f"/proc/{pid}/status") as file:
        (line,) = (line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
