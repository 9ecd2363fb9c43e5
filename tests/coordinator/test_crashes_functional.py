"""What survives: SIGKILL of the coordinator, of a runner, of a training process; a clean stop."""

import asyncio
import os
import select
import signal
from pathlib import Path

from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.locks import locked
from app.files.json_files import read_json
from generated.mindcoordinator.v1.jobs_pb2 import ListJobsRequest
from generated.mindcoordinator.v1.watch_pb2 import LogEntry
from tests.coordinator.harness import Client, client_of, coordinator_process, running, status_of
from tests.coordinator.scripts import COUNTS, counted, counting
from tests.processes import descendants, lives


async def gone(directory: JobDir) -> None:
    """Wait until a job's runner has left: it holds the lock while it lives."""

    def wait() -> None:
        with locked(directory.lock, wait=True):
            pass

    async with asyncio.timeout(60):
        await asyncio.to_thread(wait)


async def whole_log(client: Client, job_id: str) -> list[LogEntry]:
    entries = await client.log(job_id)
    assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))
    return entries


async def test_runs_survive_a_killed_coordinator(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    job_id = ""
    pids = set()
    for life in range(4):
        async with (
            coordinator_process(tmp_path) as process,
            client_of(process.port, drive) as client,
        ):
            if life == 0:
                job_id = await client.submit(
                    COUNTS, training_config={"environment": {"UP_TO": "300"}}
                )
            await client.until_line(job_id, f"count {40 * life + 1}")
            who = read_json(JobDir(tmp_path / "jobs" / job_id).run(1).runner)
            assert who is not None
            pids.add(who["pid"])
            if life < 3:
                await process.stop(signal.SIGKILL)
            else:
                assert status_of(await client.end(job_id)) == "COMPLETED"
                assert counted(await whole_log(client, job_id)) == list(range(1, 301))
                job = await client.job(job_id)
                assert job.run_count == 1
                assert job.progress.step == 300
                await process.stop(signal.SIGTERM)
                assert process.process.returncode == 0
    assert len(pids) == 1


async def test_a_run_that_ended_while_nobody_looked(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    async with coordinator_process(tmp_path) as process, client_of(process.port, drive) as client:
        job_id = await client.submit(COUNTS, training_config={"environment": {"UP_TO": "60"}})
        await client.until_line(job_id, "count 2")
        await process.stop(signal.SIGKILL)
    await gone(JobDir(tmp_path / "jobs" / job_id))
    async with coordinator_process(tmp_path) as process, client_of(process.port, drive) as client:
        assert status_of(await client.end(job_id)) == "COMPLETED"
        assert counted(await whole_log(client, job_id)) == list(range(1, 61))
        await process.stop(signal.SIGTERM)


async def test_a_runner_that_was_killed_while_nobody_looked(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    async with coordinator_process(tmp_path) as process, client_of(process.port, drive) as client:
        job_id = await client.submit(COUNTS, training_config={"environment": {"UP_TO": "100000"}})
        await client.until_line(job_id, "count 5")
        await process.stop(signal.SIGKILL)
    who = read_json(JobDir(tmp_path / "jobs" / job_id).run(1).runner)
    assert who is not None
    os.kill(who["pid"], signal.SIGKILL)
    async with coordinator_process(tmp_path) as process, client_of(process.port, drive) as client:
        job = await client.end(job_id)
        assert (status_of(job), job.run_count) == ("FAILED", 1)
        assert "runner" in job.error_message
        counts = counted(await whole_log(client, job_id))
        assert counts == list(range(1, len(counts) + 1)), "it was begun again"
        await process.stop(signal.SIGTERM)


async def test_a_clean_stop_puts_runs_back_and_leaves_no_process(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    async with coordinator_process(tmp_path) as process, client_of(process.port, drive) as client:
        job_id = await client.submit(COUNTS, training_config={"environment": counting(150, 20)})
        await client.until_line(job_id, "count 20")
        family = descendants(process.process.pid)
        assert len(family) >= 2
        await process.stop(signal.SIGTERM)
        assert process.process.returncode == 0
        assert not [member for member in family if lives(member)]
    async with coordinator_process(tmp_path) as process, client_of(process.port, drive) as client:
        assert status_of(await client.end(job_id)) == "COMPLETED"
        assert counted(await whole_log(client, job_id)) == list(range(1, 151))
        job = await client.job(job_id)
        assert job.run_count == 2
        assert len(job.checkpoints) == 1
        listed = await client.call("ListJobs", ListJobsRequest())
        assert listed.total_count == 1
        await process.stop(signal.SIGTERM)


async def test_a_killed_runner_fails_its_job_and_leaves_no_process(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(COUNTS, training_config={"environment": {"UP_TO": "100000"}})
        await client.until_line(job_id, "count 5")
        who = read_json(JobDir(tmp_path / "jobs" / job_id).run(1).runner)
        assert who is not None
        training = os.pidfd_open(who["process_groups"][0])
        try:
            os.kill(who["pid"], signal.SIGKILL)
            job = await client.end(job_id)
            assert status_of(job) == "FAILED"
            assert "runner" in job.error_message
            # It was killed with its group; a process needs a moment to end of that.
            ended, _, _ = await asyncio.to_thread(select.select, [training], [], [], 60)
            assert ended
        finally:
            os.close(training)
        counts = counted(await whole_log(client, job_id))
        assert counts == list(range(1, len(counts) + 1))


async def test_a_killed_training_process_is_retried_as_often_as_allowed(tmp_path: Path) -> None:
    script = """
        import os, signal
        print("here")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(script, training_config={"max_retries": 2})
        job = await client.end(job_id)
        assert status_of(job) == "FAILED"
        assert job.run_count == 3
        assert job.exit_code == -9
        assert "signal 9" in job.error_message
        lines = [entry.message for entry in await whole_log(client, job_id)]
        assert lines.count("here") == 3
