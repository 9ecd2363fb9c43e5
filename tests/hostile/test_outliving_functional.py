"""Nothing outlives its job, at every level. What jobs may do every day is in `test_escapes`."""

import asyncio
import fcntl
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from app.files.json_files import read_json
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest, PauseJobRequest
from tests.coordinator.harness import Client, status_of
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


async def _success(client: Client, machine: Machine) -> str:
    job_id = await client.submit(script(_LEAVES))
    assert status_of(await client.end(job_id)) == "COMPLETED"
    return job_id


async def _failure(client: Client, machine: Machine) -> str:
    job_id = await client.submit(script(f"{_LEAVES}\nos._exit(3)"))
    assert status_of(await client.end(job_id)) == "FAILED"
    return job_id


async def _crash(client: Client, machine: Machine) -> str:
    job_id = await client.submit(script(f"{_LEAVES}\nos.kill(os.getpid(), 11)"))
    assert status_of(await client.end(job_id)) == "FAILED"
    return job_id


async def _cancellation(client: Client, machine: Machine) -> str:
    job_id = await _stays(client)
    await client.call("CancelJob", CancelJobRequest(job_id=job_id))
    assert status_of(await client.end(job_id)) == "CANCELLED"
    return job_id


async def _limit_of_time(client: Client, machine: Machine) -> str:
    job_id = await client.submit(
        script(f"{_LEAVES}\ntime.sleep(600)"),
        # Long enough for what it leaves behind to be there, on a machine with much to do.
        scheduling_config={"max_runtime_seconds": 15},
    )
    assert status_of(await client.end(job_id)) == "FAILED"
    return job_id


async def _pause(client: Client, machine: Machine) -> str:
    job_id = await _stays(client)
    await client.call("PauseJob", PauseJobRequest(job_id=job_id, save_checkpoint=False))
    await client.until_status(job_id, "PAUSED")
    await nobody_is_left(client, job_id)
    await client.call("CancelJob", CancelJobRequest(job_id=job_id))
    return job_id


def _end_of_the_runner(number: signal.Signals) -> Callable[[Client, Machine], Awaitable[str]]:
    async def end(client: Client, machine: Machine) -> str:
        job_id = await _stays(client)
        os.kill(runner_of(machine.path, job_id), number)
        job = await client.end(job_id)
        assert status_of(job) == "FAILED"
        assert "runner" in job.error_message
        return job_id

    return end


async def _stays(client: Client) -> str:
    """A job that has left its processes behind, and goes on."""
    job_id = await client.submit(script(f"{_LEAVES}\ntime.sleep(600)"))
    await client.until_line(job_id, "ready")
    return job_id


#: How jobs end; they do it side by side.
_ENDS = (
    *(_success, _failure, _crash, _cancellation, _limit_of_time, _pause),
    *map(_end_of_the_runner, (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS)),
)


async def test_nothing_outlives_its_job_however_that_ends(isolated: Machine) -> None:
    async def ends(client: Client, end: Callable[[Client, Machine], Awaitable[str]]) -> str:
        job_id = await end(client, isolated)
        await nobody_is_left(client, job_id)
        return job_id

    async with isolated.client() as client:
        job_ids = await asyncio.gather(*(ends(client, end) for end in _ENDS))
    await all_is_well(isolated, *job_ids)


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
