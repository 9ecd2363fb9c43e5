"""The ways in which scripts end every day: each leaves the machine as it was."""

import asyncio
import os
from pathlib import Path

import pytest

from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest
from tests.coordinator.harness import status_of
from tests.coordinator.scripts import WAITS
from tests.hostile.canary import Canary
from tests.hostile.machine import HOSTILE, Machine
from tests.hostile.wellbeing import all_is_well

ENDS = {
    "success": ("", "COMPLETED"),
    "an exception": ("raise SystemError('harm')", "FAILED"),
    "no Python": ("\0", "FAILED"),
    "a signal": ("import os; os.kill(os.getpid(), 11)", "FAILED"),
    "output that is not UTF-8": (
        "import sys; sys.stdout.buffer.write(b'\\xff\\x00' * 50000)",
        "COMPLETED",
    ),
    "closed outputs": ("import os; os.close(1); os.close(2)", "COMPLETED"),
}


@pytest.mark.parametrize("name", ENDS)
async def test_a_job_that_ends(machine: Machine, name: str) -> None:
    script, status = ENDS[name]
    async with machine.client() as client:
        job_id = await client.submit(script)
    (told,) = await all_is_well(machine, job_id)
    assert status_of(told.job) == status


async def test_a_job_that_is_cancelled(machine: Machine) -> None:
    async with machine.client() as client:
        job_id = await client.submit(WAITS)
        await client.until_line(job_id, "ready")
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
    (told,) = await all_is_well(machine, job_id)
    assert status_of(told.job) == "CANCELLED"


async def test_a_canary_outside_of_the_jobs_directories(machine: Machine) -> None:
    canary = Canary.at(machine.path.parent / "canary" / "secret")
    async with machine.client() as client:
        job_id = await client.submit(f"""
            import os, shutil
            path = {str(canary.path)!r}
            for harm in (
                lambda: print(open(path).read()),
                lambda: open(path, "w"),
                lambda: os.truncate(path, 0),
                lambda: os.link(path, os.environ["SCAIMIND_OUTPUT_DIR"] + "/linked"),
                lambda: os.rename(path, path + ".gone"),
                lambda: shutil.rmtree(os.path.dirname(path)),
                lambda: open(path + ".new", "w"),
            ):
                try:
                    harm()
                except OSError as error:
                    print(error.strerror)
            os.symlink(path, os.environ["SCAIMIND_OUTPUT_DIR"] + "/link")
            os.symlink(path, os.environ["SCAIMIND_CHECKPOINT_DIR"] + "/step-1")
        """)
    (told,) = await all_is_well(machine, job_id)
    assert status_of(told.job) == "COMPLETED"
    canary.is_untouched()
    canary.is_unread(machine.path)
    output = machine.drive / HOSTILE / "jobs" / job_id / "output"
    assert await asyncio.to_thread(os.listdir, output) == []


async def test_the_canary_sings_when_it_is_touched(tmp_path: Path) -> None:
    canary = Canary.at(tmp_path / "canary" / "secret")
    canary.is_untouched()
    (tmp_path / "copied").write_text(f"it says {canary.text}")
    with pytest.raises(AssertionError):
        canary.is_unread(tmp_path)
    canary.path.chmod(0o666)
    with pytest.raises(AssertionError):
        canary.is_untouched()
