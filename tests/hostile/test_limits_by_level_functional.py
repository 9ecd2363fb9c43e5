"""What was asked for is enforced at each level of isolation that this machine offers."""

import asyncio

import pytest

from tests.coordinator.harness import status_of
from tests.hostile.places import Place, machine_at, places
from tests.hostile.wellbeing import all_is_well

#: Takes what it can: all cores, and memory in a process that has left its session.
TAKES = """
import os, time
try:
    os.sched_setaffinity(0, range(os.cpu_count()))
except OSError as error:
    print(error)
print("cores", len(os.sched_getaffinity(0)), flush=True)
if os.fork():
    time.sleep(600)
os.setsid()
if os.fork():
    os._exit(0)
held = bytearray(os.urandom(4096)) * (300 * 256)
time.sleep(600)
"""


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(each, marks=pytest.mark.slow if each.ordinary or each.bundled else ())
        for each in places()
    ],
    ids=str,
)
def test_more_than_asked_is_not_to_be_had(place: Place) -> None:
    async def run() -> None:
        async with machine.client() as client:
            job_id = await client.submit(
                TAKES, resource_config={"cpu_count": 1, "memory_bytes": 64 * 1024**2}
            )
        (answers,) = await all_is_well(machine, job_id)
        assert status_of(answers.job) == "FAILED"
        assert " MiB of the 64.0 MiB asked" in answers.job.error_message
        assert "cores 1" in answers.messages

    with machine_at(place) as machine:
        asyncio.run(run())
