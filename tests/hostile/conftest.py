"""Coordinators for the hostile jobs of a module, that do not disturb each other."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import grpc
import pytest

from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest
from tests.coordinator.harness import TERMINAL, status_of
from tests.hostile.levels import offered
from tests.hostile.machine import HOSTILE, Machine, machine_on
from tests.hostile.wellbeing import a_restart_changes_nothing, list_jobs


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "levels(*names): of isolation, at which a test says something; all unless given"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that uses `isolated` runs at each level that this host offers."""
    if "level" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("levels")
        levels = [name for name in offered() if marker is None or name in marker.args]
        metafunc.parametrize("level", levels, scope="module")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A coordinator; when the module is over, it starts again and tells the same of every job."""
    with _that_starts_again(tmp_path_factory) as machine:
        yield machine


@pytest.fixture
async def machine(shared: Machine) -> AsyncIterator[Machine]:
    """The module's coordinator, for one test."""
    yield shared
    await _cancel_what_is_left(shared)


@pytest.fixture(scope="module")
def shared_at_level(tmp_path_factory: pytest.TempPathFactory, level: str) -> Iterator[Machine]:
    """As `shared`, at a level of isolation."""
    # So many jobs run side by side: tests submit theirs together.
    with _that_starts_again(tmp_path_factory, isolation=level, cpus="12") as machine:
        yield machine


@pytest.fixture
async def isolated(shared_at_level: Machine) -> AsyncIterator[Machine]:
    """The module's coordinator at a level of isolation, for one test."""
    yield shared_at_level
    await _cancel_what_is_left(shared_at_level)


@contextmanager
def _that_starts_again(
    tmp_path_factory: pytest.TempPathFactory, **settings: str
) -> Iterator[Machine]:
    path = tmp_path_factory.mktemp("machine") / "data"
    with machine_on(path, code=None, **settings) as machine:
        yield machine
        asyncio.run(_starts_again(machine))


async def _starts_again(machine: Machine) -> None:
    async with machine.client() as client:
        jobs = {job.job_id: HOSTILE for job in await list_jobs(client)}
    await a_restart_changes_nothing(machine, jobs)


async def _cancel_what_is_left(machine: Machine) -> None:
    """Cancel the jobs of a test that failed: the next test must not suffer from them."""
    async with machine.client() as client:
        for job in await list_jobs(client):
            if status_of(job) not in TERMINAL:
                try:
                    await client.call("CancelJob", CancelJobRequest(job_id=job.job_id))
                except grpc.aio.AioRpcError as error:
                    # It has ended since it was listed.
                    if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                        raise
                await client.end(job.job_id)
