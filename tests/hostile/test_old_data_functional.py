"""A data directory of an earlier coordinator opens: nothing is stuck, nothing is lost."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from generated.mindcoordinator.v1.jobs_pb2 import (
    CancelJobRequest,
    Job,
    PauseJobRequest,
    ResumeJobRequest,
    RetryJobRequest,
)
from generated.mindcoordinator.v1.watch_pb2 import LogEntry
from tests.coordinator.harness import TERMINAL, Client, status_of
from tests.coordinator.scripts import counted
from tests.hostile.machine import HOSTILE, NEIGHBOUR, CannotStart, Machine, machine_on
from tests.hostile.old_data import CPUS, MANY, TOKEN, OldData, old_code, runner_of, write_old_data
from tests.hostile.wellbeing import (
    FINE,
    Answers,
    list_jobs,
    no_defect,
    nothing_is_held,
    read_everything,
    told,
)


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Machine]:
    """The earlier coordinator, on a directory that is new."""
    code = old_code(tmp_path / "code")
    with machine_on(tmp_path / "data", code=code, cpus=str(CPUS)) as machine:
        yield machine


async def test_what_an_earlier_coordinator_left_goes_on(old: Machine) -> None:
    data = await write_old_data(old)
    runner = runner_of(old.path, data.living["runs on"])
    buried = os.pidfd_open(runner_of(old.path, data.living["loses its runner"]))
    signal.pidfd_send_signal(buried, signal.SIGKILL)
    os.close(buried)

    # Full of tracebacks.
    await asyncio.to_thread(old.log_file.rename, old.log_file.with_suffix(".old"))

    with machine_on(old.path, cpus=str(CPUS)) as machine:
        async with machine.client() as client, machine.client(NEIGHBOUR) as neighbour:
            await the_stuck_jobs_end(client, data)
            await what_is_told_is_whole(client, data)
            await the_living_go_on(machine, neighbour, data, runner)
            await what_ended_can_be_retried(neighbour, data)
            await nothing_is_held(neighbour)
            after = await client.submit(FINE)
            assert status_of(await client.end(after)) == "COMPLETED"
        everything = {job.job_id: tenant for tenant, job in await every_job(machine)}
        assert everything.keys() >= {*data.stuck.values(), *data.broken.values()}
        before = await told(machine, everything)
        await asyncio.to_thread(machine.restart)
        assert await told(machine, everything) == before
        no_defect(machine)
        assert await asyncio.to_thread(machine.stop) == 0
        # Its directory is a newer one's now.
        with pytest.raises(CannotStart) as caught:
            await asyncio.to_thread(old.start)
        (line,) = str(caught.value).strip().splitlines()
        assert "version" in line
        assert (old.path / "coordinator.db.v1").exists(), "there is no copy of the earlier store"


async def every_job(machine: Machine) -> list[tuple[str, Job]]:
    found: list[tuple[str, Job]] = []
    for tenant in (HOSTILE, NEIGHBOUR):
        async with machine.client(tenant) as client:
            found += [(tenant, job) for job in await list_jobs(client)]
    return found


async def the_stuck_jobs_end(client: Client, data: OldData) -> None:
    for name, job_id in (data.stuck | data.broken).items():
        job = await client.end(job_id)
        assert status_of(job) in TERMINAL, name
        assert status_of(job) == "COMPLETED" or job.error_message, name


async def what_is_told_is_whole(client: Client, data: OldData) -> None:
    for job_id in (*data.stuck.values(), *data.broken.values()):
        assert "here" in (await read_everything(client, job_id)).messages
    many = (await read_everything(client, data.many_checkpoints)).job
    assert [each.step for each in many.checkpoints] == list(range(MANY - 100, MANY))
    assert many.checkpoint_count == MANY
    for job_id in data.evaluations.values():
        await read_everything(client, job_id)


async def the_living_go_on(machine: Machine, client: Client, data: OldData, runner: int) -> None:
    living = data.living
    # The runner of the earlier coordinator is followed, and does what it is asked.
    assert runner_of(machine.path, living["runs on"]) == runner
    for name in ("runs on", "is paused later"):
        at = max(counted(await lines_so_far(client, living[name])))
        await client.until_line(living[name], f"count {at + 20}")
    await client.call(
        "PauseJob", PauseJobRequest(job_id=living["is paused later"], save_checkpoint=True)
    )
    job = await client.until_status(living["is paused later"], "PAUSED")
    assert (job.run_count, len(job.checkpoints)) == (1, 1)
    assert status_of(await client.job(living["runs on"])) == "TRAINING"
    # A runner that was killed is buried, and its job is told to have failed.
    job = await client.end(living["loses its runner"])
    assert status_of(job) == "FAILED"
    assert "runner" in job.error_message
    # Paused jobs go on from their checkpoints.
    for name in ("paused", "is paused later"):
        job = await client.job(living[name])
        (saved,) = job.checkpoints
        await client.call("ResumeJob", ResumeJobRequest(job_id=living[name]))
        await client.until_line(living[name], f"count {saved.step + 20}")
        counts = counted(await lines_so_far(client, living[name]))
        assert counts == list(range(1, len(counts) + 1))
    for name in ("runs on", "paused", "is paused later"):
        await client.call("CancelJob", CancelJobRequest(job_id=living[name]))
        assert status_of(await client.end(living[name])) == "CANCELLED"
    # Now there is room for what waits.
    job = await client.end(living["queued"])
    assert status_of(job) == "COMPLETED"
    assert TOKEN not in str(job)
    answers = await read_everything(client, living["queued"])
    assert any("CUDA_VISIBLE_DEVICES" in line for line in answers.messages)
    assert " True" in answers.messages, "the token did not reach the training"
    assert status_of(await client.end(living["may run for ever"])) == "COMPLETED"
    job = await client.job(living["pending"])
    assert status_of(job) == "PENDING"
    await client.call("CancelJob", CancelJobRequest(job_id=living["pending"]))


async def lines_so_far(client: Client, job_id: str) -> list[LogEntry]:
    last = 0
    entries: list[LogEntry] = []
    async for message in client.watch(job_id):
        if message.HasField("start"):
            last = message.start.last_offset
        entries += message.logs
        if entries and entries[-1].offset >= last:
            break
    return entries


async def what_ended_can_be_retried(client: Client, data: OldData) -> None:
    for status, job_id in data.ended.items():
        answers: Answers = await read_everything(client, job_id)
        assert status_of(answers.job) == status
    assert (await read_everything(client, data.ended["COMPLETED"])).metrics.total_points == 10
    retried = await client.call("RetryJob", RetryJobRequest(job_id=data.ended["FAILED"]))
    job = await client.end(retried.job_id)
    assert (status_of(job), job.exit_code) == ("FAILED", 3)
    again = await client.call("RetryJob", RetryJobRequest(job_id=data.ended["PREEMPTED"]))
    await client.until_line(again.job_id, "ready")
    await client.call("CancelJob", CancelJobRequest(job_id=again.job_id))
    assert status_of(await client.end(again.job_id)) == "CANCELLED"
