"""A job that takes all process ids that there are ends as any other, at the level `user`."""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.coordinator.isolation.ending.user_processes import pids_of
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest
from tests.coordinator.harness import status_of
from tests.hostile.cases import script
from tests.hostile.machine import Machine
from tests.hostile.places import PASSABLE

#: User ids that no other test uses.
_IDS = range(201000, 201004)
#: Takes all process ids that there are, and refills what goes.
_TAKES_ALL = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def refill():
    os.setsid()
    while True:
        try:
            if os.fork() == 0:
                time.sleep(600)
        except OSError:
            time.sleep(0.02)
while True:
    try:
        if os.fork() == 0:
            refill()
    except OSError:
        break
print("full", flush=True)
time.sleep(600)
"""


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])


def _processes_of_jobs() -> list[int]:
    return [pid for uid in _IDS for pid in pids_of(uid)]


@pytest.fixture
def data() -> Iterator[Path]:
    """A data directory that every user can reach."""
    base = Path(tempfile.mkdtemp(prefix="ids-"))
    base.chmod(0o711)
    (base / "data").mkdir(mode=0o711)
    yield base / "data"
    shutil.rmtree(base)


@pytest.mark.skipif(
    os.geteuid() != 0 or _kernel() < (6, 14),
    reason="needs root, and a bound of process ids that a namespace has of its own (Linux 6.14)",
)
async def test_a_job_that_took_all_process_ids_does_not_outlive_its_end(data: Path) -> None:
    within = (
        *(*PASSABLE, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
        # The shell stays: the coordinator is not process 1.
        *("sh", "-c", 'echo 400 > /proc/sys/kernel/pid_max && "$@"; exit $?', "sh"),
    )
    uids = f"{_IDS[0]}-{_IDS[-1]}"
    machine = Machine(data, within=within, isolation="user", stop_grace="1", job_uids=uids)
    try:
        machine.start()
        async with machine.client() as client:
            job_id = await client.submit(script(_TAKES_ALL))
            await client.until_line(job_id, "full")
            assert _processes_of_jobs()
            await client.call("CancelJob", CancelJobRequest(job_id=job_id))
            assert status_of(await client.end(job_id)) == "CANCELLED"
            assert not _processes_of_jobs()
            again = await client.end(await client.submit(script("print('fine')")))
            assert status_of(again) == "COMPLETED"
    finally:
        if machine.process is not None:
            # With it ends all that has its process ids.
            machine.process.kill()
            machine.process.wait()
