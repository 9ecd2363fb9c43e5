"""Disks that are really full, and directories that cannot be written: the job ends, the
coordinator does not."""

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from app.coordinator import BadConfig
from app.coordinator.logs.log import LogReader
from app.coordinator.storage.disk_reserve import SIZE, DiskReserve
from app.coordinator.storage.job_directory import JobDir
from app.files.json_files import read_json
from generated.mindcoordinator.v1.cluster_pb2 import GetClusterStatusRequest
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest
from tests.coordinator.harness import (
    SECRET,
    Client,
    Killable,
    client_of,
    coordinator_process,
    running,
    status_of,
    submission,
)
from tests.coordinator.scripts import WAITS
from tests.ports import free_ports

#: Mounts small disks, then becomes the command behind it; the mounts are gone with it.
_MOUNT = """
for place in $PLACES; do mount -t tmpfs -o size=$SIZE none "$place" || exit 1; done
exec "$@"
"""


def small_disks(*places: Path, size: str) -> tuple[str, ...]:
    """A command in which these directories are disks of their own."""
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    joined = " ".join(map(str, places))
    return (
        *("unshare", "--map-root-user", "--mount", "--propagation", "private"),
        *("env", f"PLACES={joined}", f"SIZE={size}", "sh", "-c", _MOUNT, "sh"),
    )


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    test = ("unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt")
    return subprocess.run(test, check=False, capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(
    not can_mount(), reason="no disk can be mounted here, not even in a namespace of its own"
)


@asynccontextmanager
async def on_small_disk(path: Path) -> AsyncIterator[tuple[Killable, Client]]:
    """A coordinator whose data directory is a disk of 24 MiB; the drive is not on it."""
    data, drive = path / "data", path / "drive"
    within = small_disks(data, size="24m")
    async with (
        coordinator_process(
            data, within=(*within, "env", f"SCAIMIND_COORDINATOR_DRIVE_DIR={drive}")
        ) as process,
        client_of(process.port, drive) as client,
    ):
        yield process, client


FILLS = """
    import os
    with open(os.environ["TMPDIR"] + "/fill", "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError as error:
            assert error.errno == 28, error
    print("full")
    while True:
        print("more", "x" * 2000)
"""


@needs_mounts
async def test_a_full_disk_ends_the_job_and_not_the_coordinator(tmp_path: Path) -> None:
    async with on_small_disk(tmp_path) as (process, client):
        for _ in range(2):
            # The second time shows that the space is free again, and kept again.
            job_id = await client.submit(FILLS)
            job = await client.end(job_id)
            assert status_of(job) == "FAILED", job
            assert "12.0 MiB allowed (job_disk_bytes)" in job.error_message
            # What it wrote last had no room beside its own file.
            assert "No space left on device" in job.error_message
        job_id = await client.submit("print('room again')")
        assert status_of(await client.end(job_id)) == "COMPLETED"
        await process.stop(signal.SIGTERM)
        assert process.process.returncode == 0


#: Writes numbered lines and numbers until it is told to leave, by a file on a disk that has room.
COUNTS = """
    import json, os, pathlib, time
    beside = pathlib.Path(os.environ["SCAIMIND_CHECKPOINT_DIR"])
    metrics = open(os.environ["SCAIMIND_METRICS_FILE"], "a")
    # The file has its blocks: only the coordinator's own writing fails.
    os.posix_fallocate(metrics.fileno(), 0, 1)
    os.truncate(metrics.fileno(), 0)
    n = 0
    while not (beside / "leave").exists():
        n += 1
        print(n, "x" * 300)
        try:
            metrics.write(json.dumps({"step": n}) + "\\n")
            metrics.flush()
        except OSError:
            pass
        time.sleep(0.01)
    print("the last line")
    (beside / "left").touch()
"""


def beside(path: Path, job_id: str) -> Path:
    """The job's checkpoint directory."""
    return path / "drive/local/jobs" / job_id / "checkpoints"


def last_offset(data: Path, job_id: str) -> int:
    """The offset of the newest line of a job's log."""
    with LogReader(JobDir(data / "jobs" / job_id).log) as reader:
        return reader.last_offset()


async def take_all_room(data: Path, job_id: str) -> Path:
    """Fill the disk, and wait until no line of the job can be written. Returns what fills it."""
    full = data / "fill"
    before = -1
    while before < (now := last_offset(data, job_id)):
        before = now
        await asyncio.to_thread(fill, full)
        await asyncio.sleep(1)
    return full


async def until_written(data: Path, job_id: str, offset: int) -> None:
    """Wait until a line behind `offset` is in a job's log."""
    async with asyncio.timeout(60):
        while last_offset(data, job_id) <= offset:  # noqa: ASYNC110  # a file
            await asyncio.sleep(0.1)


async def until_there(path: Path) -> None:
    """Wait until a file is there."""
    async with asyncio.timeout(120):
        while not path.exists():  # noqa: ASYNC110, ASYNC240  # a file
            await asyncio.sleep(0.1)


def has_all_lines(messages: list[str]) -> bool:
    """Whether each line that was written is there once, in order, up to the last."""
    numbers = [int(text.split()[0]) for text in messages if text.endswith("xxx")]
    return numbers == list(range(1, len(numbers) + 1)) and "the last line" in messages


@needs_mounts
async def test_jobs_wait_while_others_fill_the_disk_and_lose_no_line(tmp_path: Path) -> None:
    async with on_small_disk(tmp_path) as (process, client):
        data = Path(f"/proc/{process.process.pid}/root{tmp_path}/data")
        job_id = await client.submit(COUNTS)
        await client.until_line(job_id, "5 ")
        for _ in range(2):
            full = await take_all_room(data, job_id)
            assert status_of(await client.job(job_id)) == "TRAINING"
            await asyncio.to_thread(full.unlink)
            await until_written(data, job_id, last_offset(data, job_id))
        # It leaves while the disk is full: its last lines wait for room.
        full = await take_all_room(data, job_id)
        (beside(tmp_path, job_id) / "leave").touch()
        await asyncio.sleep(2)
        await asyncio.to_thread(full.unlink)
        assert status_of(await client.end(job_id)) == "COMPLETED"
        messages = [entry.message for entry in await client.log(job_id)]
        assert has_all_lines(messages), messages[-20:]


@needs_mounts
async def test_a_run_can_be_asked_to_leave_while_it_waits_for_room(tmp_path: Path) -> None:
    async with on_small_disk(tmp_path) as (process, client):
        data = Path(f"/proc/{process.process.pid}/root{tmp_path}/data")
        job_id = await client.submit(COUNTS)
        await client.until_line(job_id, "5 ")
        full = await take_all_room(data, job_id)
        run = JobDir(data / "jobs" / job_id).run(1)
        os.kill((read_json(run.runner) or {})["pid"], signal.SIGTERM)
        await until_there(run.exit)
        assert (read_json(run.exit) or {})["stopped"]
        await asyncio.to_thread(full.unlink)
        await client.end(job_id)


@needs_mounts
@pytest.mark.slow
async def test_a_run_whose_last_lines_never_fit_is_tried_again(tmp_path: Path) -> None:
    async with on_small_disk(tmp_path) as (process, client):
        data = Path(f"/proc/{process.process.pid}/root{tmp_path}/data")
        job_id = await client.submit(COUNTS, training_config={"max_retries": 1})
        await client.until_line(job_id, "5 ")
        full = await take_all_room(data, job_id)
        (beside(tmp_path, job_id) / "leave").touch()
        run = JobDir(data / "jobs" / job_id).run(1)
        await until_there(run.exit)
        await asyncio.to_thread(full.unlink)
        assert status_of(await client.end(job_id)) == "COMPLETED"
        messages = [entry.message for entry in await client.log(job_id)]
        assert any("could not be written: No space left on device" in text for text in messages)
        assert messages.count("the last line") == 1


@needs_mounts
async def test_artefacts_for_which_there_is_no_room_fail_the_job(tmp_path: Path) -> None:
    data, drive = tmp_path / "data", tmp_path / "drive"
    within = small_disks(drive / "local/models", size="1m")
    script = """
        import os
        with open(os.environ["SCAIMIND_OUTPUT_DIR"] + "/model", "wb") as file:
            file.write(bytes(2 * 1024 * 1024))
    """
    async with (
        coordinator_process(
            data, within=(*within, "env", f"SCAIMIND_COORDINATOR_DRIVE_DIR={drive}")
        ) as process,
        client_of(process.port, drive) as client,
    ):
        for path, status in (("models/mine", "FAILED"), ("elsewhere", "COMPLETED")):
            job_id = await client.submit(
                script, output_config={"path": f"scaidrive://local/{path}"}
            )
            job = await client.end(job_id)
            assert status_of(job) == status, job
            assert ("No space left on device" in job.error_message) == (status == "FAILED")
        await process.stop(signal.SIGTERM)


async def test_artefacts_that_cannot_be_written_fail_the_job(tmp_path: Path) -> None:
    script = """
        import os, time
        open(os.environ["SCAIMIND_OUTPUT_DIR"] + "/model", "w").close()
        print("ready")
        while not os.path.exists("go"):
            time.sleep(0.01)
    """
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(
            script, output_config={"path": "scaidrive://local/models/mine"}
        )
        await client.until_line(job_id, "ready")
        # From now on nothing can be made in there, by root neither.
        client.write("models", "not a directory")
        (JobDir(tmp_path / "jobs" / job_id).work / "go").touch()
        job = await client.end(job_id)
        assert status_of(job) == "FAILED"
        assert job.error_message
        assert str(tmp_path) not in job.error_message
        assert status_of(await client.end(await client.submit("pass"))) == "COMPLETED"


async def test_a_checkpoint_directory_that_cannot_be_made_fails_the_job(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        client.write("jobs", "not a directory")
        job = await client.end(await client.submit("pass"))
        assert status_of(job) == "FAILED"
        assert job.error_message
        assert str(tmp_path) not in job.error_message
        await client.call("GetClusterStatus", GetClusterStatusRequest())


async def test_a_coordinator_whose_own_log_is_full_goes_on(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app", "coordinator"),
            stdout=full,
            stderr=full,
            env={
                **os.environ,
                "SCAIMIND_COORDINATOR_DATA_DIR": str(tmp_path),
                "SCAIMIND_COORDINATOR_API_SECRET": SECRET,
                "SCAIMIND_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            },
        )
    finally:
        os.close(full)
    try:
        async with client_of(port, tmp_path / "drive") as client:
            async with asyncio.timeout(60):
                await client.stub.GetClusterStatus(
                    GetClusterStatusRequest(), metadata=client.metadata, wait_for_ready=True
                )
            job_id = await client.submit("print('here')")
            assert status_of(await client.end(job_id)) == "COMPLETED"
            assert "here" in [entry.message for entry in await client.log(job_id)]
    finally:
        process.terminate()
        async with asyncio.timeout(60):
            await process.wait()


def test_the_reserve_gives_its_space_once(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path / "reserve")
    assert not reserve.release()
    reserve.fill()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= SIZE
    assert reserve.release()
    assert (tmp_path / "reserve").stat().st_blocks == 0
    assert not reserve.release()


def fill(path: Path) -> None:
    """Write to a file until nothing fits any more."""
    with path.open("ab", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


@needs_mounts
async def test_on_a_full_disk_jobs_can_be_ended_and_none_submitted(tmp_path: Path) -> None:
    async with on_small_disk(tmp_path) as (process, client):
        job_id = await client.submit(WAITS)
        await client.until_line(job_id, "ready")
        # Where the coordinator sees its disk.
        full = Path(f"/proc/{process.process.pid}/root{tmp_path}/data/fill")
        await asyncio.to_thread(fill, full)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("SubmitJob", submission())
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION, "there is no script"
        client.write("train.py", "pass")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("SubmitJob", submission())
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "No space left on device" in str(caught.value.details())
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        assert status_of(await client.end(job_id)) == "CANCELLED"
        await asyncio.to_thread(full.unlink)
        answer = await client.call("SubmitJob", submission())
        assert status_of(await client.end(answer.job_id)) == "COMPLETED"
        await process.stop(signal.SIGTERM)


async def test_a_database_that_cannot_be_opened_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "coordinator.db").mkdir()
    with pytest.raises(BadConfig, match=r"SCAIMIND_COORDINATOR_DATA_DIR: unable to open"):
        async with running(tmp_path):
            raise AssertionError("it started")


_OPENS_ON_A_FULL_DISK = """
import os, sqlite3, sys
from pathlib import Path
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.steps.store_steps import STEPS, UnusableStore, bring_up
path = Path(sys.argv[1]) / "coordinator.db"
db = sqlite3.connect(path, isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
bring_up(db, path, STEPS[:1])
db.close()
with open(path.parent / "fill", "wb", buffering=0) as file:
    while True:
        try:
            file.write(bytes(4096))
        except OSError:
            break
try:
    SqliteStore(path)
except UnusableStore as error:
    print(error)
(path.parent / "fill").unlink()
SqliteStore(path).close()
print("opened")
"""


@needs_mounts
def test_a_store_on_a_disk_without_a_free_byte_says_what_to_do(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    found = subprocess.run(
        [*small_disks(disk, size="16m"), sys.executable, "-c", _OPENS_ON_A_FULL_DISK, disk],
        check=True,
        capture_output=True,
        text=True,
    )
    said, opened = found.stdout.splitlines()
    assert "Free some space, then start again" in said
    assert opened == "opened"
