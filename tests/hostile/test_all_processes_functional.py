"""A job that takes all processes that there are: the coordinator and other jobs go on."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.coordinator.isolation.landlock import landlock_version
from app.coordinator.isolation.levels import Level
from tests.coordinator.harness import status_of
from tests.hostile.machine import HOSTILE, NEIGHBOUR, Machine, machine_on
from tests.hostile.places import PASSABLE

#: Nobody else's here: the kernel counts the processes of a user, wherever they are. The tests of
#: different levels may run at the same time.
_USERS = {Level.NAMESPACES: 54_321, Level.LANDLOCK: 54_322}
_PROCESSES = 600
_FORKS = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
count = 0
while True:
    try:
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
    except OSError:
        break
    count += 1
print("refused", flush=True)
while True:
    try:
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
    except OSError:
        time.sleep(0.01)
"""


@pytest.fixture(params=list(_USERS))
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine of an ordinary user who may have 600 processes."""
    if os.geteuid() != 0 or shutil.which("prlimit") is None or landlock_version() < 6:
        pytest.skip("needs root, prlimit and Landlock of Linux 6.12")
    user = _USERS[request.param]
    base = Path(tempfile.mkdtemp(prefix="processes-"))
    base.chmod(0o711)
    data = base / "data"
    for folder in (data, data / "drive", *(data / "drive" / who for who in (HOSTILE, NEIGHBOUR))):
        folder.mkdir()
        os.chown(folder, user, user)
    limit = ["prlimit", f"--nproc={_PROCESSES}:{_PROCESSES}"]
    within = [*PASSABLE, "--user", str(user), *limit]
    try:
        with machine_on(data, within=within, isolation=request.param.value) as machine:
            yield machine
    finally:
        shutil.rmtree(base)


async def test_a_job_that_takes_all_processes_ends_nobody_else(machine: Machine) -> None:
    assert f"bound='RLIMIT_NPROC = {_PROCESSES}'" in machine.log()
    async with machine.client() as hostile, machine.client(NEIGHBOUR) as neighbour:
        greedy = await hostile.submit(_FORKS)
        await hostile.until_line(greedy, "refused")
        for _ in range(3):
            job_id = await neighbour.submit("print('fine')")
            job = await neighbour.end(job_id)
            assert status_of(job) == "COMPLETED", job.error_message
        assert machine.process is not None
        assert machine.process.poll() is None
