"""Every single script that once blocked a machine, broke a page or killed a runner."""

import pytest

from tests.coordinator.harness import status_of
from tests.hostile.cases import BROKEN_READS, RUNNER_DIED, STUCK, Case
from tests.hostile.machine import Machine
from tests.hostile.wellbeing import Answers, all_is_well


async def ended(machine: Machine, case: Case) -> Answers:
    async with machine.client() as client:
        job_id = await client.submit(case.script, **case.asked)
    (told,) = await all_is_well(machine, job_id)
    if status_of(told.job) != "COMPLETED":
        assert told.job.error_message, told.job
    return told


@pytest.mark.parametrize("name", STUCK)
async def test_what_blocked_a_machine(machine: Machine, name: str) -> None:
    told = await ended(machine, STUCK[name])
    assert "here" in told.messages


@pytest.mark.parametrize("name", BROKEN_READS)
async def test_what_broke_a_page(machine: Machine, name: str) -> None:
    told = await ended(machine, BROKEN_READS[name])
    assert status_of(told.job) == "COMPLETED"


@pytest.mark.parametrize("name", RUNNER_DIED)
async def test_what_killed_a_runner(machine: Machine, name: str) -> None:
    told = await ended(machine, RUNNER_DIED[name])
    assert status_of(told.job) == "COMPLETED"
    assert "still here" in told.messages


@pytest.mark.levels("user", "landlock", "none")
@pytest.mark.slow
async def test_all_of_them_at_weaker_levels(isolated: Machine) -> None:
    cases = {**STUCK, **BROKEN_READS, **RUNNER_DIED}
    async with isolated.client() as client:
        # Side by side, as far as the machine has room.
        job_ids = [await client.submit(case.script, **case.asked) for case in cases.values()]
    for name, told in zip(cases, await all_is_well(isolated, *job_ids), strict=True):
        assert status_of(told.job) == "COMPLETED" or told.job.error_message, name
