"""What the coordinator has to say of a running job is in the job's log at once, and once."""

import asyncio
import errno
import os
import signal
from contextlib import closing
from pathlib import Path

import pytest

from app.coordinator.engines.local.run_notes import (
    MOST_BYTES,
    leave_note,
    mark_said,
    notes_not_said,
    read_notes,
)
from app.coordinator.logs import log as logs
from app.coordinator.logs.log import LogWriter
from app.coordinator.storage.job_directory import JobDir, RunDir
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest
from generated.mindcoordinator.v1.watch_pb2 import LogEntry
from tests.coordinator.harness import client_of, coordinator_process, running, status_of

#: Has a checkpoint that is left out, and waits.
ODD = """
    import os, time
    C = os.environ["SCAIMIND_CHECKPOINT_DIR"]
    os.mkdir(C.encode() + b"/step-\\xff1")
    print("made", flush=True)
    while not os.path.exists("go"):
        time.sleep(0.05)
        print("on", flush=True)
"""
NOTE = "not UTF-8"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    directory = JobDir(tmp_path).run(1)
    directory.path.mkdir(parents=True)
    logs.create(directory.job.log)
    return directory


def test_a_note_is_left_once(run: RunDir) -> None:
    assert read_notes(run) == ([], 0)
    assert leave_note(run, "one\ntwo")
    assert leave_note(run, "three")
    assert leave_note(run, "one\ntwo")
    notes, size = read_notes(run)
    assert notes == ["one\ntwo", "three"]
    assert read_notes(run, after=size) == ([], size)


def test_what_a_full_disk_cut_off_is_no_note(run: RunDir) -> None:
    leave_note(run, "one")
    with open(run.notes, "ab") as file:
        file.write(b'"hal')
    assert read_notes(run)[0] == ["one"]
    leave_note(run, "two")
    assert read_notes(run)[0] == ["one", "two"]


def test_notes_have_a_bound(run: RunDir) -> None:
    count = 0
    while leave_note(run, f"{count} " + "x" * 1000):
        count += 1
    assert run.notes.stat().st_size <= MOST_BYTES
    assert len(read_notes(run)[0]) == count > 50


def test_a_note_that_was_said_is_not_said_again(run: RunDir) -> None:
    for text in ("one", "two", "three"):
        leave_note(run, text)
        if text == "one":
            mark_said(run, read_notes(run)[1])
    # The runner was killed before it could write down that it had said it.
    with closing(LogWriter(run.job.log)) as writer:
        writer.append([LogEntry(message="two", source="coordinator")])
        writer.append([LogEntry(message="three", source="stdout")])
    assert notes_not_said(run)[0] == ["three"]
    mark_said(run, notes_not_said(run)[1])
    assert notes_not_said(run)[0] == []


async def test_a_note_is_in_the_log_while_the_job_runs(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(ODD)
        line = await client.until_line(job_id, NOTE)
        assert line.source == "coordinator"
        assert status_of(await client.job(job_id)) == "TRAINING"
        go = JobDir(tmp_path / "jobs" / job_id).work / "go"
        await asyncio.to_thread(go.touch)
        assert status_of(await client.end(job_id)) == "COMPLETED"
        log = await client.log(job_id)
        assert [NOTE in entry.message for entry in log].count(True) == 1


async def test_a_coordinator_that_is_killed_says_it_once(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    async with coordinator_process(tmp_path) as first, client_of(first.port, drive) as client:
        job_id = await client.submit(ODD)
        await client.until_line(job_id, NOTE)
        await first.stop(signal.SIGKILL)
    async with coordinator_process(tmp_path) as second, client_of(second.port, drive) as client:
        more = drive / "local" / "jobs" / job_id / "checkpoints" / "step-1"
        await asyncio.to_thread(more.mkdir)
        # By then it has looked at the checkpoints anew.
        await client.until(job_id, lambda job: len(job.checkpoints) == 1)
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        await client.end(job_id)
        log = await client.log(job_id)
        assert [NOTE in entry.message for entry in log].count(True) == 1


def test_a_note_of_which_a_full_disk_takes_a_part_is_not_left(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_note(run, "one")
    room = [4]
    write = os.write

    def nearly_full(file: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(file, data[: room[0]])
        room[0] -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", nearly_full)
        with pytest.raises(OSError, match="No space left"):
            leave_note(run, "a longer one")
    assert read_notes(run)[0] == ["one"]
    assert leave_note(run, "a longer one")
    assert read_notes(run)[0] == ["one", "a longer one"]
