"""Nothing outlives its job, at every level; and what jobs may do every day still works there."""

import asyncio
import fcntl
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from app.files.json_files import read_json
from generated.mindcoordinator.v1.jobs_pb2 import (
    CancelJobRequest,
    PauseJobRequest,
    ResumeJobRequest,
)
from tests.coordinator.harness import PATIENCE, Client, status_of
from tests.hostile.cases import script
from tests.hostile.machine import HOSTILE, Machine
from tests.hostile.old_data import runner_of
from tests.hostile.wellbeing import all_is_well

#: Leaves a process behind that holds a lock, in each way in which one may get away.
_LEAVES = """
import ctypes, fcntl, signal, time
def get_away(name, *ways):
    if os.fork():
        return
    for way in ways:
        way()
    file = os.open(f"{C}/{name}.lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    open(f"{C}/{name}.held", "w")
    while True:
        time.sleep(600)
def fork():
    if os.fork():
        os._exit(0)
def deaf():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
def silent():
    for number in range(3):
        os.close(number)
def nameless():
    os.environ.clear()
    ctypes.CDLL(None).prctl(15, b"kworker/0:1")
WAYS = {
    "session": (os.setsid,),
    "daemon": (os.setsid, fork, silent),
    "deaf": (fork, os.setsid, fork, deaf, silent),
    "nameless": (nameless, os.setsid, fork, os.setsid, fork, silent),
}
for name, ways in WAYS.items():
    get_away(name, *ways)
while not all(os.path.exists(f"{C}/{name}.held") for name in WAYS):
    time.sleep(0.01)
print("ready", flush=True)
"""
_WAYS = ("session", "daemon", "deaf", "nameless")


def checkpoints(client: Client, job_id: str) -> Path:
    return client.drive / HOSTILE / "jobs" / job_id / "checkpoints"


async def nobody_is_left(client: Client, job_id: str, *names: str) -> None:
    """Every process that the job left behind is gone: each held a lock while it lived."""

    def wait(path: Path) -> None:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(file)

    for name in names or _WAYS:
        await asyncio.to_thread(wait, checkpoints(client, job_id) / f"{name}.lock")


async def test_nothing_outlives_success(isolated: Machine) -> None:
    async with isolated.client() as client:
        job_id = await client.submit(script(_LEAVES))
        job = await client.end(job_id)
        await nobody_is_left(client, job_id)
    assert status_of(job) == "COMPLETED"
    await all_is_well(isolated, job_id)


@pytest.mark.parametrize("how", ["os._exit(3)", "os.kill(os.getpid(), 11)"])
async def test_nothing_outlives_failure(isolated: Machine, how: str) -> None:
    async with isolated.client() as client:
        job_id = await client.submit(script(f"{_LEAVES}\n{how}"))
        job = await client.end(job_id)
        await nobody_is_left(client, job_id)
    assert status_of(job) == "FAILED"
    await all_is_well(isolated, job_id)


async def test_nothing_outlives_cancellation(isolated: Machine) -> None:
    async with isolated.client() as client:
        job_id = await client.submit(script(f"{_LEAVES}\ntime.sleep(600)"))
        await client.until_line(job_id, "ready")
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        await client.end(job_id)
        await nobody_is_left(client, job_id)
    await all_is_well(isolated, job_id)


async def test_nothing_outlives_the_limit_of_time(isolated: Machine) -> None:
    async with isolated.client() as client:
        job_id = await client.submit(
            script(f"{_LEAVES}\ntime.sleep(600)"), scheduling_config={"max_runtime_seconds": 3}
        )
        await client.end(job_id)
        await nobody_is_left(client, job_id)
    await all_is_well(isolated, job_id)


async def test_nothing_outlives_a_pause(isolated: Machine) -> None:
    async with isolated.client() as client:
        job_id = await client.submit(script(f"{_LEAVES}\ntime.sleep(600)"))
        await client.until_line(job_id, "ready")
        await client.call("PauseJob", PauseJobRequest(job_id=job_id, save_checkpoint=False))
        await client.until_status(job_id, "PAUSED")
        await nobody_is_left(client, job_id)
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
    await all_is_well(isolated, job_id)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS])
async def test_nothing_outlives_its_runner(isolated: Machine, number: signal.Signals) -> None:
    async with isolated.client() as client:
        job_id = await client.submit(script(f"{_LEAVES}\ntime.sleep(600)"))
        await client.until_line(job_id, "ready")
        os.kill(runner_of(isolated.path, job_id), number)
        job = await client.end(job_id)
        await nobody_is_left(client, job_id)
    assert status_of(job) == "FAILED"
    assert "runner" in job.error_message
    await all_is_well(isolated, job_id)


async def test_nothing_outlives_a_killed_coordinator_and_runner(isolated: Machine) -> None:
    async with isolated.client() as client:
        job_id = await client.submit(script(f"{_LEAVES}\ntime.sleep(600)"))
        await client.until_line(job_id, "ready")
    await asyncio.to_thread(isolated.stop, signal.SIGKILL)
    os.kill(runner_of(isolated.path, job_id), signal.SIGKILL)
    await asyncio.to_thread(isolated.start)
    async with isolated.client() as client:
        job = await client.end(job_id)
        await nobody_is_left(client, job_id)
    assert status_of(job) == "FAILED"
    await all_is_well(isolated, job_id)


#: Each process lives for two milliseconds, so that no list of `/proc` holds it for long. The lock
#: goes from one to the next.
_FORKS_ON = """
import fcntl, time
first = os.getppid()
file = os.open(f"{C}/chain.lock", os.O_CREAT | os.O_RDWR)
fcntl.flock(file, fcntl.LOCK_EX)
if os.fork() == 0:
    os.setsid()
    while True:
        if os.fork():
            os._exit(0)
        time.sleep(0.002)
os.close(file)
print("ready", flush=True)
# Whoever stands still would be found.
while os.getppid() == first:
    time.sleep(0.001)
"""


async def test_what_forks_on_does_not_outlive_its_runner_and_first_process(
    isolated: Machine,
) -> None:
    async with isolated.client() as client:
        job_id = await client.submit(script(_FORKS_ON))
        await client.until_line(job_id, "ready")
        who = read_json(isolated.path / "jobs" / job_id / "runs/1/runner.json")
        assert who is not None
        for pid in (who["pid"], *(mark["pid"] for mark in who["sandbox"])):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await client.end(job_id)
        await nobody_is_left(client, job_id, "chain")
    await all_is_well(isolated, job_id)


async def test_a_pause_saves_a_checkpoint(isolated: Machine) -> None:
    async with isolated.client() as client:
        job_id = await client.submit(
            script(
                """
import signal, time
def leave(*_):
    os.mkdir(C + "/step-7.tmp")
    os.rename(C + "/step-7.tmp", C + "/step-7")
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("resumed" if os.environ["SCAIMIND_RESUME_FROM"].endswith("step-7") else "ready", flush=True)
time.sleep(0 if os.environ["SCAIMIND_RESUME_FROM"] else 600)
"""
            )
        )
        await client.until_line(job_id, "ready")
        await client.call("PauseJob", PauseJobRequest(job_id=job_id, save_checkpoint=True))
        job = await client.until_status(job_id, "PAUSED")
        assert [each.checkpoint_id for each in job.checkpoints] == ["step-7"]
        await client.call("ResumeJob", ResumeJobRequest(job_id=job_id))
    (told,) = await all_is_well(isolated, job_id)
    assert status_of(told.job) == "COMPLETED"
    assert "saved" in told.messages
    assert "resumed" in told.messages


async def test_a_segmentation_fault_is_told_and_retried(isolated: Machine) -> None:
    async with isolated.client() as client:
        job_id = await client.submit(
            script("import ctypes; ctypes.string_at(0)"), training_config={"max_retries": 1}
        )
    (told,) = await all_is_well(isolated, job_id)
    assert (status_of(told.job), told.job.run_count) == ("FAILED", 2)
    assert told.job.exit_code == -11
    assert "signal 11" in told.job.error_message


async def test_two_ranks_share_a_file_in_shared_memory(isolated: Machine) -> None:
    async with isolated.client() as client:
        job_id = await client.submit(
            script(
                """
import time
path = f"/dev/shm/of-{os.environ['SCAIMIND_JOB_ID']}"
if os.environ["RANK"] == "0":
    open(path + ".new", "w").write("shared")
    os.rename(path + ".new", path)
    while os.path.exists(path):
        time.sleep(0.01)
else:
    while not os.path.exists(path):
        time.sleep(0.01)
    print("it says", open(path).read(), flush=True)
    os.unlink(path)
"""
            ),
            training_config={"framework": {"distributed": {"world_size": 2}}},
        )
        async with asyncio.timeout(PATIENCE):
            job = await client.end(job_id)
    assert status_of(job) == "COMPLETED"
    (told,) = await all_is_well(isolated, job_id)
    assert "it says shared" in told.messages


# Below, /dev/shm is the machine's.
@pytest.mark.levels("namespaces")
async def test_what_is_left_in_shared_memory_goes(isolated: Machine) -> None:
    async with isolated.client() as client:
        job_id = await client.submit(
            script('open("/dev/shm/left-" + os.environ["SCAIMIND_JOB_ID"], "w").write("x")')
        )
        await client.end(job_id)
    assert not [name for name in await asyncio.to_thread(os.listdir, "/dev/shm") if job_id in name]
    await all_is_well(isolated, job_id)
