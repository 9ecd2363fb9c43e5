"""A leader that is replaced in the middle of its work changes nothing more, whatever it was doing.

It stands still as if its machine did, at one place of each kind of work that writes
outside of the store's transactions.
"""

import asyncio
from pathlib import Path

import grpc.aio
import pytest

from generated.mindcoordinator.v1.jobs_pb2 import (
    DeleteJobRequest,
    ListJobsRequest,
    RetryJobRequest,
)
from tests.coordinator.deposing import Deposed, deposed_at
from tests.coordinator.harness import status_of

WRITES = """
    import os
    with open(os.environ["SCAIMIND_OUTPUT_DIR"] + "/model", "w") as file:
        file.write("made by the job")
"""
#: Of the first one: it asks for its lease every 6 seconds, which is all that ends it here.
SOON = {"LEASE_SECONDS": "30"}
#: Runs until it is told to end.
WAITS = """
    import os, time
    print("begun", flush=True)
    while not os.path.exists(os.environ["SCAIMIND_CHECKPOINT_DIR"] + "/go"):
        time.sleep(0.05)
    print("over", flush=True)
"""


def go(both: Deposed, job_id: str) -> None:
    (both.path / "drive" / "local" / "jobs" / job_id / "checkpoints" / "go").touch()


async def assert_lines(both: Deposed, job_id: str, *wanted: str, runs: int = 1) -> None:
    """Each line is there once, with dense offsets, and so many runs were begun."""
    entries = await both.second.log(job_id)
    assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))
    assert [entry.message for entry in entries if entry.source == "stdout"] == list(wanted)
    assert len([entry for entry in entries if " begins on " in entry.message]) == runs


async def test_an_export_replaces_nothing_that_was_put_there_meanwhile(
    tmp_path: Path, postgres_dsn: str
) -> None:
    place = "app.coordinator.execution.artefacts:copy_tree"
    async with deposed_at(place, tmp_path / "data", postgres_dsn) as both:
        # A folder that is there is written to file by file.
        both.first.write("exports/model", "of before")
        both.arm()
        job_id = await both.first.submit(
            WRITES, output_config={"path": "scaidrive://local/exports"}
        )
        await both.until_it_stands_still()
        assert status_of(await both.second.end(job_id)) == "COMPLETED"
        exported = both.path / "drive" / "local" / "exports" / "model"
        assert exported.read_text() == "made by the job"
        await asyncio.to_thread(exported.write_text, "edited by its owner")
        await both.assert_it_changes_nothing()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "settings"),
    [
        pytest.param("app.coordinator.execution.preparation:Preparation.prepare", {}, id="prepare"),
        pytest.param("app.coordinator.engines.local.launcher:metrics_before", SOON, id="launch"),
    ],
)
async def test_a_run_is_begun_by_the_one_that_leads(
    tmp_path: Path, postgres_dsn: str, place: str, settings: dict[str, str]
) -> None:
    async with deposed_at(place, tmp_path / "data", postgres_dsn, settings=settings) as both:
        both.arm()
        job_id = await both.first.submit(WAITS)
        await both.until_it_stands_still()
        await both.second.until_line(job_id, "begun")
        # It touches no directory in which a run goes on.
        await both.assert_it_changes_nothing()
        await asyncio.to_thread(go, both, job_id)
        assert status_of(await both.second.end(job_id)) == "COMPLETED"
        await assert_lines(both, job_id, "begun", "over")


@pytest.mark.slow
async def test_a_kill_does_not_reach_a_run_of_the_one_that_leads(
    tmp_path: Path, postgres_dsn: str
) -> None:
    place = "app.coordinator.engines.local.local_run:LocalRun.stop"
    async with deposed_at(place, tmp_path / "data", postgres_dsn, settings=SOON) as both:
        job_id = await both.first.submit(WAITS)
        await both.first.until_line(job_id, "begun")
        both.arm()
        # It stops its runs when it is stopped.
        both.process.process.terminate()
        await both.until_it_stands_still()
        # The next leader stops it, as was stored, and begins it again.
        await both.second.until_line(job_id, "Run 2 begins")
        await both.assert_it_changes_nothing(tells=True)
        await asyncio.to_thread(go, both, job_id)
        assert status_of(await both.second.end(job_id)) == "COMPLETED"
        await assert_lines(both, job_id, "begun", "begun", "over", runs=2)


@pytest.mark.slow
async def test_retention_deletes_no_job_that_runs_again(tmp_path: Path, postgres_dsn: str) -> None:
    place = "app.coordinator.retention.deletion:JobDeletion.delete"
    kept = {"RETENTION_BYTES": "1", "RETENTION_INTERVAL": "1"}
    async with deposed_at(place, tmp_path / "data", postgres_dsn, settings=kept) as both:
        both.arm()
        job_id = await both.first.submit(f"{WAITS}\n    raise SystemExit(3)")
        await both.first.until_line(job_id, "begun")
        await asyncio.to_thread(go, both, job_id)
        await both.until_it_stands_still()
        assert status_of(await both.second.job(job_id)) == "FAILED"
        go_file = both.path / "drive" / "local" / "jobs" / job_id / "checkpoints" / "go"
        await asyncio.to_thread(go_file.unlink)
        retried = await both.second.call("RetryJob", RetryJobRequest(job_id=job_id))
        await both.second.until_line(retried.job_id, "begun")
        await both.assert_it_changes_nothing()


@pytest.mark.slow
async def test_the_files_of_a_deleted_job_are_removed_once(
    tmp_path: Path, postgres_dsn: str
) -> None:
    place = "app.coordinator.retention.kept_files:KeptFiles.remove"
    async with deposed_at(place, tmp_path / "data", postgres_dsn) as both:
        job_id = await both.first.submit("print('over')")
        other = await both.first.submit("print('stays')")
        for each in (job_id, other):
            assert status_of(await both.first.end(each)) == "COMPLETED"
        both.arm()
        deletion = asyncio.create_task(
            both.first.call("DeleteJob", DeleteJobRequest(job_id=job_id)), name="deletion"
        )
        await both.until_it_stands_still()
        assert status_of(await both.second.job(other)) == "COMPLETED"
        await both.assert_it_changes_nothing()
        await asyncio.gather(deletion, return_exceptions=True)
        assert not (both.path / "jobs" / job_id).exists()
        await assert_lines(both, other, "stays")


@pytest.mark.slow
async def test_secrets_of_the_next_leaders_jobs_are_not_swept_away(
    tmp_path: Path, postgres_dsn: str
) -> None:
    place = "app.coordinator.jobs.secrets:JobSecrets.sweep"
    async with deposed_at(place, tmp_path / "data", postgres_dsn, armed=True) as both:
        await both.until_it_stands_still()
        script = f"{WAITS}\n    print(len(os.environ['API_TOKEN']), flush=True)"
        given = {"environment": {"API_TOKEN": "0123456789abcdef"}}
        job_id = await both.second.submit(script, training_config=given)
        await both.second.until_line(job_id, "begun")
        await both.assert_it_changes_nothing()
        assert (both.path / "secrets" / f"{job_id}.json").is_file()
        await asyncio.to_thread(go, both, job_id)
        assert status_of(await both.second.end(job_id)) == "COMPLETED"
        await assert_lines(both, job_id, "begun", "over", "16")


@pytest.mark.slow
async def test_a_submission_leaves_nothing_behind(tmp_path: Path, postgres_dsn: str) -> None:
    place = "app.coordinator.service.base:Calls._make_directory"
    async with deposed_at(place, tmp_path / "data", postgres_dsn) as both:
        both.arm()
        submission = asyncio.create_task(both.first.submit("print('never')"), name="submission")
        await both.until_it_stands_still()
        await both.assert_it_changes_nothing()
        (failed,) = await asyncio.gather(submission, return_exceptions=True)
        assert isinstance(failed, grpc.aio.AioRpcError)
        listed = await both.second.call("ListJobs", ListJobsRequest(page_size=10))
        assert not listed.jobs
