"""A gateway whose PostgreSQL is stopped, slow, full and restarted, while requests go on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from app.api.app_keys import JOB_WRITER
from app.cache.writer import JobWriter
from app.database.pool import Pool
from app.local.postgres import Postgres
from generated.mindcoordinator.v1.jobs_pb2 import JOB_STATUS_TRAINING, Job, ListJobsResponse
from tests.cache.jobs import value
from tests.cache.server import Gateway, gateway_on, own_server, start


@pytest.fixture(autouse=True)
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobWriter, "SHORTEST_PAUSE", 0.05)
    monkeypatch.setattr(JobWriter, "LONGEST_PAUSE", 0.2)


@pytest.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Postgres]:
    async with own_server(tmp_path_factory.mktemp("pg") / "data") as server:
        yield server


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the tasks that have asked any pool for a connection since it was emptied."""
    names: set[str] = set()
    acquire = Pool.acquire

    def noted(pool: Pool) -> Any:
        task = asyncio.current_task()
        assert task is not None
        names.add(task.get_name())
        return acquire(pool)

    monkeypatch.setattr(Pool, "acquire", noted)
    return names


def tell(gateway: Gateway, revision: int) -> None:
    """What the coordinator has to say from now on."""
    jobs = [
        Job(job_id=f"job-{n}", status=JOB_STATUS_TRAINING, revision=revision) for n in range(30)
    ]
    gateway.coordinator.answer("ListJobs", ListJobsResponse(jobs=jobs, total_count=30))
    gateway.coordinator.answer("GetJob", jobs[0])


async def requests_succeed(gateway: Gateway, revision: int, *, times: int = 20) -> None:
    for _ in range(times):
        status, body = await gateway.ask("/jobs?page_size=30")
        assert (status, body["data"]["total_count"]) == (200, 30)
        assert {each["revision"] for each in body["data"]["jobs"]} == {revision}
        assert (await gateway.ask("/jobs/job-0"))[0] == 200


def revisions(server: Postgres) -> list[tuple[int, int]]:
    with closing(psycopg2.connect(server.dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT revision, count(*) FROM mod_scaimind_jobs GROUP BY 1")
        return cursor.fetchall()


async def written(gateway: Gateway, server: Postgres, revision: int) -> None:
    async def there() -> bool:
        return await asyncio.to_thread(revisions, server) == [(revision, 30)]

    await gateway.until(there)


def failed(gateway: Gateway) -> float:
    return value(gateway.metrics.registry, "scaimind_cache_writes_total", result="failed")


def dropped(gateway: Gateway, reason: str) -> float:
    return value(gateway.metrics.registry, "scaimind_cache_dropped_jobs_total", reason=reason)


async def test_stopped_and_started_again(server: Postgres, waiting: set[str]) -> None:
    async with gateway_on(server.dsn, buffer_jobs=10, batch_jobs=10) as gateway:
        # Of 30 jobs that come at once, the buffer holds the last ten.
        tell(gateway, 1)
        await requests_succeed(gateway, 1)
        await server.service.stop()
        before, gave_up = failed(gateway), dropped(gateway, "full")
        waiting.clear()
        tell(gateway, 2)
        await requests_succeed(gateway, 2)
        await gateway.until(lambda: failed(gateway) >= before + 3)
        await requests_succeed(gateway, 2)
        # None but the writer, and those who look after API keys, has asked for a connection.
        assert waiting <= {"job-cache-writer", "job-cache-purge", "revocations-look"}
        assert "job-cache-writer" in waiting
        assert dropped(gateway, "full") > gave_up
        assert value(gateway.metrics.registry, "scaimind_cache_waiting_jobs") <= 10
        status, body = await gateway.ask("/summary")
        assert (status, body["error"]["code"]) == (503, "CACHE_UNAVAILABLE")

        await start(server)
        tell(gateway, 3)

        await requests_succeed(gateway, 3, times=1)

        async def recovered() -> bool:
            return dict(await asyncio.to_thread(revisions, server)).get(3, 0) >= 10

        await gateway.until(recovered)
        assert (await gateway.ask("/summary"))[0] == 200


async def test_restarted_between_two_writes(server: Postgres) -> None:
    async with gateway_on(server.dsn) as gateway:
        tell(gateway, 1)
        await requests_succeed(gateway, 1, times=1)
        await written(gateway, server, 1)
        await server.service.stop()
        await start(server)
        tell(gateway, 2)
        await requests_succeed(gateway, 2, times=1)
        await written(gateway, server, 2)
        assert dropped(gateway, "full") == dropped(gateway, "refused") == 0


async def test_slow(server: Postgres, waiting: set[str]) -> None:
    """A lock that somebody holds makes every write last until its time-out."""
    async with gateway_on(server.dsn, statement_timeout=0.5) as gateway:
        with closing(psycopg2.connect(server.dsn)) as connection, connection.cursor() as cursor:
            cursor.execute("LOCK TABLE mod_scaimind_jobs")
            tell(gateway, 1)
            await requests_succeed(gateway, 1, times=1)
            await gateway.until(lambda: "job-cache-writer" in waiting)
            # The writer waits in its statement, or for its next try; requests do not.
            await requests_succeed(gateway, 1)
            await gateway.until(lambda: failed(gateway) >= 1)
            await requests_succeed(gateway, 1)
            assert waiting <= {"job-cache-writer", "job-cache-purge", "revocations-look"}
        await written(gateway, server, 1)
        assert dropped(gateway, "full") == 0


async def test_full(server: Postgres) -> None:
    """What PostgreSQL says when its disk is full."""
    with closing(psycopg2.connect(server.dsn)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE"
            " 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;"
            "CREATE TRIGGER full_disk BEFORE INSERT ON mod_scaimind_jobs"
            " EXECUTE FUNCTION full_disk()"
        )
        async with gateway_on(server.dsn) as gateway:
            tell(gateway, 1)
            await requests_succeed(gateway, 1)
            await gateway.until(lambda: failed(gateway) >= 2)
            await requests_succeed(gateway, 1)
            cursor.execute("DROP TRIGGER full_disk ON mod_scaimind_jobs")
            await written(gateway, server, 1)
            assert dropped(gateway, "full") == dropped(gateway, "refused") == 0


async def test_a_stop_of_the_gateway_writes_what_it_has_seen(
    server: Postgres, tmp_path: Path
) -> None:
    async with gateway_on(server.dsn, flush_interval=60) as gateway:
        tell(gateway, 1)
        await requests_succeed(gateway, 1, times=1)
        assert isinstance(gateway.app[JOB_WRITER], JobWriter)
        assert revisions(server) == []
    assert revisions(server) == [(1, 30)]
