"""What was asked for is enforced, and what was not asked for is not."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest
from tests.coordinator.harness import Client, status_of
from tests.coordinator.scripts import WAITS
from tests.hostile.machine import Machine, machine_on
from tests.hostile.wellbeing import all_is_well

MIB = 1024**2
#: Every byte is another one's: pages of zeros may be one page.
HOLDS = """
import os, time
held = bytearray(os.urandom(4096)) * (300 * 256)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with small bounds for what cannot be asked for."""
    with machine_on(
        tmp_path_factory.mktemp("resources") / "data",
        job_processes="100",
        job_open_files="256",
        job_disk_bytes="50MiB",
        job_files="500",
        job_checkpoint_bytes="30MiB",
        job_log_bytes="2MiB",
        job_metrics_bytes="1MiB",
    ) as machine:
        yield machine


async def _said(client: Client, job_id: str) -> list[str]:
    return [entry.message for entry in await client.log(job_id)]


@asynccontextmanager
async def _ended(machine: Machine, script: str, **resources: Any) -> AsyncIterator[tuple[Any, Any]]:
    """A job that came to its end, and everything that is told of it; all is well then."""
    async with machine.client() as client:
        job_id = await client.submit(
            script, resource_config=resources, training_config={"max_retries": 2}
        )
    (answers,) = await all_is_well(machine, job_id)
    yield answers.job, answers


@pytest.mark.parametrize(
    "script",
    [
        HOLDS,
        # In its children, each below the limit.
        """
import os, time
for _ in range(6):
    if os.fork() == 0:
        os.setsid()
        held = bytearray(os.urandom(4096)) * (50 * 256)
        time.sleep(600)
time.sleep(600)
""",
        # In memory that is shared and mapped.
        """
import mmap, os, time
held = mmap.mmap(-1, 300 * 1024**2)
held.write(os.urandom(1024**2) * 300)
time.sleep(600)
""",
        # In a file without a name, mapped nowhere.
        """
import os, time
held = os.memfd_create("held")
for _ in range(300):
    os.write(held, os.urandom(1024**2))
time.sleep(600)
""",
        # While its processes come and go.
        """
import os, time
held = bytearray(os.urandom(4096)) * (300 * 256)
while True:
    if os.fork() == 0:
        os._exit(0)
    os.wait()
""",
    ],
)
async def test_more_memory_than_asked_ends_the_run_with_that_reason(
    machine: Machine, script: str
) -> None:
    async with _ended(machine, script, memory_bytes=64 * MIB, cpu_count=1) as (job, answers):
        assert status_of(job) == "FAILED"
        assert job.run_count == 1, "it would use as much again"
        assert " MiB of the 64.0 MiB asked" in job.error_message
        assert job.error_message.startswith("The run used ")
        assert answers.lines("of the 64.0 MiB asked")


async def test_memory_that_is_within_what_was_asked_ends_nothing(machine: Machine) -> None:
    """Pages that processes share count once, and those of files on a disk not at all."""
    async with _ended(
        machine,
        """
import mmap, os, time
held = bytearray(os.urandom(4096)) * (100 * 256)
children = []
for _ in range(4):
    children.append(os.fork())
    if children[-1] == 0:
        time.sleep(6)
        os._exit(0)
with open("large", "wb") as file:
    file.write(os.urandom(1024**2) * 40)
with open("large", "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
sum(mapped[::4096])
for child in children:
    os.waitpid(child, 0)
""",
        memory_bytes=200 * MIB,
    ) as (job, _):
        assert status_of(job) == "COMPLETED", job.error_message


async def test_cores_that_were_asked_for_are_all_that_there_are(machine: Machine) -> None:
    async with _ended(
        machine,
        """
import os
print("given", len(os.sched_getaffinity(0)), os.nice(0))
try:
    os.sched_setaffinity(0, range(os.cpu_count()))
except OSError as error:
    print(error)
print("taken", len(os.sched_getaffinity(0)))
""",
        cpu_count=1,
    ) as (job, answers):
        assert status_of(job) == "COMPLETED", job.error_message
        assert "given 1 0" in answers.messages
        assert "taken 1" in answers.messages


async def test_two_jobs_with_a_core_each_have_different_ones(machine: Machine) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("this machine has one core")
    shows = """
import os, time
print("core", *os.sched_getaffinity(0), flush=True)
time.sleep(600)
"""
    async with machine.client() as client:
        cores = set()
        job_ids = [await client.submit(shows, resource_config={"cpu_count": 1}) for _ in range(2)]
        for job_id in job_ids:
            cores.add((await client.until_line(job_id, "core ")).message)
        assert len(cores) == 2
        for job_id in job_ids:
            await client.call("CancelJob", CancelJobRequest(job_id=job_id))
            await client.end(job_id)


async def test_who_asks_for_no_cores_has_all_of_them_and_comes_last(machine: Machine) -> None:
    async with _ended(
        machine,
        "import os; print('given', len(os.sched_getaffinity(0)), os.nice(0) > 0)",
    ) as (_, answers):
        assert f"given {len(os.sched_getaffinity(0))} True" in answers.messages


async def test_processes_are_bounded(machine: Machine) -> None:
    async with _ended(
        machine,
        """
import os, time
made = 0
try:
    for _ in range(300):
        if os.fork() == 0:
            time.sleep(600)
        made += 1
except OSError as error:
    print("made", made, error)
    raise SystemExit(7)
time.sleep(600)
""",
    ) as (job, answers):
        # The kernel refuses them, or they are counted.
        assert status_of(job) == "FAILED"
        refused = [line for line in answers.messages if line.startswith("made ")]
        if refused:
            assert int(refused[0].split()[1]) <= 100
        else:
            assert "more than the 100 processes and threads allowed" in job.error_message


async def test_open_files_are_bounded(machine: Machine) -> None:
    async with _ended(
        machine,
        """
import os
held = []
try:
    while len(held) < 5000:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    print("held", len(held))
""",
    ) as (_, answers):
        (line,) = [line for line in answers.messages if line.startswith("held ")]
        assert int(line.split()[1]) < 256


@pytest.mark.parametrize("where", ["HOME", "SCAIMIND_OUTPUT_DIR", "TMPDIR"])
async def test_what_is_written_is_bounded(machine: Machine, where: str) -> None:
    async with _ended(
        machine,
        f"""
import os, time
for number in range(8):
    with open(os.environ["{where}"] + f"/{{number}}", "wb") as file:
        file.write(os.urandom(1024**2) * 10)
time.sleep(600)
""",
    ) as (job, _):
        assert status_of(job) == "FAILED"
        assert "of the 50.0 MiB allowed (job_disk_bytes)" in job.error_message


@pytest.mark.parametrize(
    "script",
    [
        # A file that has no name any more.
        """
import os, time
kept = os.open("kept", os.O_RDWR | os.O_CREAT)
os.unlink("kept")
for _ in range(80):
    os.write(kept, os.urandom(1024**2))
time.sleep(600)
""",
        # Many of them, in children.
        """
import os, time
for number in range(8):
    kept = os.open("kept", os.O_RDWR | os.O_CREAT)
    os.unlink("kept")
    for _ in range(10):
        os.write(kept, os.urandom(1024**2))
    if os.fork() == 0:
        time.sleep(600)
    os.close(kept)
time.sleep(600)
""",
        # The metrics file, behind a hole.
        """
import os, time
kept = os.open(os.environ["SCAIMIND_METRICS_FILE"], os.O_WRONLY)
os.lseek(kept, 1024**2, 0)
for _ in range(80):
    os.write(kept, os.urandom(1024**2))
time.sleep(600)
""",
    ],
    ids=["removed", "removed in children", "metrics file"],
)
async def test_bytes_that_no_directory_shows_are_bounded(machine: Machine, script: str) -> None:
    async with _ended(machine, script) as (job, _):
        assert status_of(job) == "FAILED"
        assert "of the 50.0 MiB allowed (job_disk_bytes)" in job.error_message


async def test_checkpoints_have_a_bound_of_their_own(machine: Machine) -> None:
    async with _ended(
        machine,
        """
import os, time
with open(os.environ["SCAIMIND_CHECKPOINT_DIR"] + "/.large", "wb") as file:
    file.write(os.urandom(1024**2) * 40)
time.sleep(600)
""",
    ) as (job, _):
        assert status_of(job) == "FAILED"
        assert "of the 30.0 MiB allowed (job_checkpoint_bytes)" in job.error_message


async def test_a_log_and_metrics_end_at_their_bounds_and_the_run_does_not(
    machine: Machine,
) -> None:
    async with _ended(
        machine,
        """
import json, os
for _ in range(500):
    os.write(1, b"x" * 65000 + b"\\n")
with open(os.environ["SCAIMIND_METRICS_FILE"], "a") as file:
    for step in range(20_000):
        numbers = {f"metric{number}": step + 0.5 for number in range(20)}
        file.write(json.dumps({"step": step, **numbers}) + "\\n")
""",
    ) as (job, answers):
        assert status_of(job) == "COMPLETED"
        kept = sum(line.startswith("xxx") for line in answers.messages)
        assert 30 <= kept < 60
        for name in ("log", "metrics"):
            said = [line for line in answers.messages if f"allowed (job_{name}_bytes)" in line]
            assert len(said) == 1
        left_out = f"{500 - kept} lines of this run were left out of the job's log (job_log_bytes)."
        assert left_out in answers.messages
        assert any(
            "snapshots of this run were left out of the job's metrics" in line
            for line in answers.messages
        )


async def test_the_number_of_files_is_bounded(machine: Machine) -> None:
    async with _ended(
        machine,
        """
import os, time
for number in range(600):
    os.mkdir(f"{number}")
time.sleep(600)
""",
    ) as (job, _):
        assert status_of(job) == "FAILED"
        assert "made more than the 500 files allowed (job_files)" in job.error_message


async def test_when_memory_is_short_who_asked_for_none_goes_newest_first(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("short") / "data"
    with machine_on(path) as machine:
        async with machine.client() as client:
            jobs = []
            for resources in ({"memory_bytes": 64 * MIB}, {}, {}):
                jobs.append(await client.submit(WAITS, resource_config=resources))
                await client.until_line(jobs[-1], "ready")
            asked, older, newer = jobs
        # From here on there is never enough.
        machine.stop(signal.SIGKILL)
        machine.settings["memory_reserve"] = "1024TiB"
        machine.start()
        async with machine.client() as client:
            first = await client.end(newer)
            second = await client.end(older)
            for job in (first, second):
                assert status_of(job) == "FAILED"
                assert "memory_reserve" in job.error_message
            assert first.ended_at.ToMicroseconds() < second.ended_at.ToMicroseconds()
            assert status_of(await client.job(asked)) == "TRAINING"
            await client.call("CancelJob", CancelJobRequest(job_id=asked))
            await client.end(asked)


async def test_what_a_virtual_node_has_and_the_machine_lacks_is_told(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("virtual") / "data"
    with machine_on(path, virtual_nodes="big:1xA100-80GB:cpus=640:memory=64TiB") as machine:
        async with machine.client() as client:
            job_id = await client.submit(
                "import os; print('given', len(os.sched_getaffinity(0)))",
                resource_config={"cpu_count": 640, "memory_bytes": 1 << 45, "gpu_count": 1},
            )
            assert status_of(await client.end(job_id)) == "COMPLETED"
            said = await _said(client, job_id)
            assert f"given {len(os.sched_getaffinity(0))}" in said
            assert any(
                "does not have 640 cores and 32768.0 GiB of memory" in line for line in said
            ), said
