"""One coordinator for the hostile jobs of a module, that do not disturb each other."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.leftovers import remove_what_is_deep
from tests.hostile.machine import HOSTILE, Machine, machine_on
from tests.hostile.wellbeing import a_restart_changes_nothing, list_jobs


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A coordinator; when the module is over, it starts again and tells the same of every job."""
    path = tmp_path_factory.mktemp("machine")
    try:
        with machine_on(path / "data") as machine:
            yield machine
            asyncio.run(_starts_again(machine))
    finally:
        remove_what_is_deep(path)


@pytest.fixture(autouse=True)
def _nothing_deep_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    remove_what_is_deep(tmp_path)


async def _starts_again(machine: Machine) -> None:
    async with machine.client() as client:
        jobs = {job.job_id: HOSTILE for job in await list_jobs(client)}
    await a_restart_changes_nothing(machine, jobs)
