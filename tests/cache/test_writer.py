"""The writer against a real PostgreSQL: nothing older ever replaces what is newer."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from itertools import permutations
from typing import Any

import orjson
import psycopg2
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from app.bridge.contract.fields import check_fields
from app.bridge.converters import to_json
from app.cache.jobs import JobCache
from app.cache.writer import JobWriter
from app.database.connection import connected
from app.database.errors import DatabaseError
from app.database.pool import Pool
from app.errors import BrokenContract
from app.telemetry.metrics import Metrics
from generated.mindcoordinator.v1.jobs_pb2 import JOB_STATUS_TRAINING, Job
from tests.cache.jobs import job, new_writer, rfc3339, value, write
from tests.databases import patient
from tests.lies import places, say, values

Tell = Callable[[JobWriter], None]


def saw(told: dict[str, Any]) -> Tell:
    return lambda writer: writer.record_job("acme", told)


def changed(minute: float, status: str) -> Tell:
    def tell(writer: JobWriter) -> None:
        writer.record_status("acme", "job-1", status=status, message=status, at=rfc3339(minute))

    return tell


async def seen_by_replicas(pool: Pool, updates: list[Tell]) -> None:
    """Each by a replica of its own, which writes it before the next one does."""
    for tell in updates:
        writer = new_writer(pool)
        tell(writer)
        await writer.close()


async def seen_by_one(pool: Pool, updates: list[Tell]) -> None:
    """All by one replica, which writes them together."""
    writer = new_writer(pool)
    for tell in updates:
        tell(writer)
    await writer.close()


FIRST = saw(job(status="QUEUED", revision=1, updated=1))
#: What is seen later, and what has to be known of the job in the end: status, revision, end.
STORIES = {
    "copies": (
        [
            saw(job(status="TRAINING", revision=3, updated=3)),
            saw(job(status="PREPARING", revision=2, updated=2)),
            saw(job(status="COMPLETED", revision=4, updated=4, ended=4)),
        ],
        ("COMPLETED", 4, 4),
    ),
    "a change beyond the copies": (
        [
            saw(job(status="TRAINING", revision=3, updated=3)),
            changed(2, "PREPARING"),
            changed(4, "COMPLETED"),
        ],
        ("COMPLETED", 3, 4),
    ),
    "a copy beyond the changes": (
        [
            changed(2, "PREPARING"),
            changed(3, "TRAINING"),
            saw(job(status="FAILED", revision=4, updated=4, ended=4)),
        ],
        ("FAILED", 4, 4),
    ),
    "a copy between the changes": (
        [
            changed(2, "TRAINING"),
            saw(job(status="EXPORTING", revision=3, updated=3)),
            changed(4, "COMPLETED"),
        ],
        ("COMPLETED", 3, 4),
    ),
    "all at one time": (
        [
            changed(2, "SCHEDULING"),
            changed(2, "PREPARING"),
            saw(job(status="PREPARING", revision=3, updated=2)),
        ],
        ("PREPARING", 3, None),
    ),
    "a clock that was set back": (
        [
            saw(job(status="TRAINING", revision=3, updated=3)),
            saw(job(status="EXPORTING", revision=4, updated=2)),
            saw(job(status="COMPLETED", revision=5, updated=2.5, ended=2.5)),
        ],
        ("COMPLETED", 5, 2.5),
    ),
    "an end told after a clock was set back": (
        [
            changed(50, "PREPARING"),
            changed(60, "TRAINING"),
            changed(5, "COMPLETED"),
        ],
        ("COMPLETED", 1, 5),
    ),
    "an ended copy after a clock was set back": (
        [
            saw(job(status="PREPARING", revision=2, updated=50)),
            changed(60, "TRAINING"),
            saw(job(status="COMPLETED", revision=4, updated=5, ended=5)),
        ],
        ("COMPLETED", 4, 5),
    ),
    "an end beyond a copy of a later time": (
        [
            saw(job(status="TRAINING", revision=3, updated=60)),
            changed(5, "FAILED"),
            changed(60, "EXPORTING"),
        ],
        ("FAILED", 3, 5),
    ),
    "an end at the time of the copy": (
        [
            saw(job(status="TRAINING", revision=3, updated=3)),
            changed(3, "CANCELLED"),
            changed(2, "PAUSED"),
        ],
        ("CANCELLED", 3, 3),
    ),
    "parts of a job": (
        [
            saw(job(status="QUEUED", revision=0)),
            saw(job(status="TRAINING", revision=3, updated=3)),
            saw(job(status="EVALUATING", revision=0, started=2)),
        ],
        ("TRAINING", 3, None),
    ),
}


@pytest.mark.parametrize("told", STORIES)
@pytest.mark.parametrize("seen", [seen_by_replicas, seen_by_one])
async def test_every_order_of_arrival_ends_the_same(
    migrated_pool: Pool, cache: JobCache, told: str, seen: Any
) -> None:
    later, expected = STORIES[told]
    for arriving in permutations(later):
        await migrated_pool.write("DELETE FROM mod_scaimind_jobs")
        await seen(migrated_pool, [FIRST, *arriving])
        stale = await cache.job("acme", "job-1")
        assert stale is not None
        status, revision, ended = expected
        assert (stale.data["status"], stale.data["revision"]) == (status, revision)
        assert stale.data.get("ended_at") == (None if ended is None else rfc3339(ended))


async def test_a_copy_of_a_higher_revision_replaces_a_status_with_a_later_time(
    migrated_pool: Pool, cache: JobCache
) -> None:
    """The coordinator's clock was set back; the job goes on."""
    told = [FIRST, changed(60, "TRAINING"), saw(job(status="PAUSED", revision=3, updated=5))]
    await seen_by_replicas(migrated_pool, told)
    stale = await cache.job("acme", "job-1")
    assert stale is not None
    assert (stale.data["status"], stale.data["revision"]) == ("PAUSED", 3)
    # And of the same revision does not, whoever reads it again.
    await seen_by_replicas(migrated_pool, [changed(70, "QUEUED"), told[-1]])
    stale = await cache.job("acme", "job-1")
    assert stale is not None
    assert stale.data["status"] == "QUEUED"


async def test_a_part_of_a_job_fills_in_until_there_is_a_copy(
    migrated_pool: Pool, cache: JobCache
) -> None:
    await write(migrated_pool, job(status="QUEUED", revision=0, name="mine"))
    stale = await cache.job("acme", "job-1")
    assert stale is not None
    assert (stale.data["status"], stale.data["name"]) == ("QUEUED", "mine")
    await write(migrated_pool, job(status="EVALUATING", revision=0, started=2, name="mine"))
    stale = await cache.job("acme", "job-1")
    assert stale is not None
    assert stale.data["status"] == "EVALUATING"
    await write(migrated_pool, job(status="TRAINING", revision=1, updated=3, name="mine, whole"))
    stale = await cache.job("acme", "job-1")
    assert stale is not None
    assert (stale.data["status"], stale.data["name"]) == ("TRAINING", "mine, whole")


async def test_a_status_leaves_the_rest_of_a_job_alone(
    migrated_pool: Pool, cache: JobCache
) -> None:
    whole = job(status="TRAINING", revision=7, updated=3, name="whole", labels={"a": "b"}, gpus=8)
    await write(migrated_pool, whole)
    await seen_by_one(migrated_pool, [changed(5, "COMPLETED")])
    stale = await cache.job("acme", "job-1")
    assert stale is not None
    assert stale.data == {
        **whole,
        "status": "COMPLETED",
        "message": "COMPLETED",
        "updated_at": rfc3339(5),
        "ended_at": rfc3339(5),
    }


async def test_a_status_of_a_job_without_a_copy_makes_no_job(
    migrated_pool: Pool, cache: JobCache
) -> None:
    await seen_by_one(migrated_pool, [changed(5, "COMPLETED")])
    assert await cache.job("acme", "job-1") is None


async def test_seeing_the_same_again_makes_it_fresh(migrated_pool: Pool, cache: JobCache) -> None:
    await write(migrated_pool, job(revision=3))
    await migrated_pool.write("UPDATE mod_scaimind_jobs SET synced_at = now() - interval '1 hour'")
    await write(migrated_pool, job(revision=2))
    stale = await cache.job("acme", "job-1")
    assert stale is not None
    assert stale.age > 3000  # an older copy says nothing of now
    await write(migrated_pool, job(revision=3))
    stale = await cache.job("acme", "job-1")
    assert stale is not None
    assert stale.age < 3000


async def test_what_the_database_could_not_hold_is_held(
    migrated_pool: Pool, cache: JobCache
) -> None:
    """NUL, long names, numbers to the last bit, text of every kind."""
    odd = job(name="nul \0 \\ ' \" {} é 🦆" + "x" * 5000, message="a\0b", revision=2**63 - 1)
    await write(migrated_pool, odd)
    stale = await cache.job("acme", "job-1")
    assert stale is not None
    assert stale.data == odd


async def test_whatever_the_contract_lets_pass_is_kept_and_read(
    migrated_pool: Pool, cache: JobCache
) -> None:
    """At the bounds of every field: years 1 and 9999, numbers of 64 bits, statuses to come."""
    last = Job(job_id="last", status=JOB_STATUS_TRAINING, revision=1)
    last.updated_at.CopyFrom(Timestamp(seconds=253_402_300_799, nanos=999_999_000))
    jobs = {"last": to_json(last)}
    for place in places("GetJob", Job.DESCRIPTOR):
        for said in values(place.way[-1]):
            told = Job(job_id=f"job-{len(jobs)}", status=JOB_STATUS_TRAINING, revision=1)
            say(told, place, said)
            with suppress(BrokenContract):
                check_fields(told)
                jobs[told.job_id] = to_json(told)
    metrics = Metrics()
    writer = new_writer(migrated_pool, metrics, buffer_jobs=100_000)
    for each in jobs.values():
        writer.record_job("acme", each)
    # At the time of the copy, after which there is no other.
    writer.record_status(
        "acme", "last", status="COMPLETED", message="", at=jobs["last"]["updated_at"]
    )
    await writer.close()

    assert value(metrics.registry, "scaimind_cache_written_jobs_total") == len(jobs)
    for job_id, whole in jobs.items():
        stale = await cache.job("acme", job_id)
        assert stale is not None
        if job_id != "last":
            assert orjson.loads(orjson.dumps(stale.data)) == whole
    found: list[str] = []
    token = ""
    while not found or token:
        page = await cache.jobs(
            "acme", statuses=(), page_size=100, page_token=token, order_by="updated_at"
        )
        assert page is not None
        found += [each["job_id"] for each in orjson.loads(orjson.dumps(page.data["jobs"]))]
        token = page.data["next_page_token"]
    assert sorted(found) == sorted(jobs)
    await cache.summary("acme", days=90)


async def test_what_cannot_be_kept_is_counted(migrated_pool: Pool, cache: JobCache) -> None:
    metrics = Metrics()
    writer = new_writer(migrated_pool, metrics)
    for job_id in ("", "x" * 257, "a\0b"):
        writer.record_job("acme", job(job_id))
    writer.record_job("acme", job("large", message="x" * 300_000))
    writer.record_job("acme", job("good"))
    await writer.close()
    dropped = "scaimind_cache_dropped_jobs_total"
    assert value(metrics.registry, dropped, reason="invalid") == 3
    assert value(metrics.registry, dropped, reason="too_large") == 1
    assert await cache.job("acme", "large") is None
    assert await cache.job("acme", "good") is not None


async def test_many_jobs_are_one_statement(migrated_pool: Pool, cache: JobCache) -> None:
    metrics = Metrics()
    writer = new_writer(migrated_pool, metrics, batch_jobs=100)
    for number in range(250):
        for revision in (1, 2):
            writer.record_job("acme", job(f"job-{number}", revision=revision))
    assert value(metrics.registry, "scaimind_cache_waiting_jobs") == 250
    await writer.close()
    assert value(metrics.registry, "scaimind_cache_writes_total", result="ok") == 3
    assert value(metrics.registry, "scaimind_cache_written_jobs_total") == 250
    assert value(metrics.registry, "scaimind_cache_waiting_jobs") == 0
    page = await cache.jobs("acme", statuses=(), page_size=1, page_token="", order_by="")
    assert page is not None
    assert page.data["total_count"] == 250


async def test_replicas_that_write_the_same_jobs_do_not_lock_each_other_out(
    migrated_dsn: str,
) -> None:
    metrics = Metrics()
    pools = [Pool(patient(migrated_dsn, pool_min=0)) for _ in range(4)]
    writers = [new_writer(pool, metrics, batch_jobs=40) for pool in pools]
    for revision in range(1, 16):
        for shift, writer in enumerate(writers):
            for number in range(40):
                name = f"job-{(number * 7 + shift * 11) % 40}"
                writer.record_job("acme", job(name, revision=revision, updated=revision))
                writer.record_status(
                    "acme", name, status="EXPORTING", message="", at=rfc3339(revision + 0.5)
                )
        await asyncio.sleep(0.01)
    async with asyncio.timeout(60):
        await asyncio.gather(*(writer.close() for writer in writers))
        await asyncio.gather(*(pool.shut() for pool in pools))
    assert value(metrics.registry, "scaimind_cache_writes_total", result="failed") == 0
    with connected(migrated_dsn) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT revision FROM mod_scaimind_jobs")
        assert cursor.fetchall() == [(15,)]


class Broken:
    """A database that fails until it is mended."""

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error
        self.tried = asyncio.Event()
        self.written: list[list[str]] = []

    async def write(self, statement: str, parameters: Any = ()) -> None:
        self.tried.set()
        if self.error is not None:
            raise self.error
        self.written.append(parameters[1])

    async def take(self, statement: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        raise NotImplementedError


def over(database: Broken, metrics: Metrics, **settings: Any) -> JobWriter:
    return new_writer(database, metrics, **settings)  # type: ignore[arg-type]  # all that it uses


async def test_while_the_database_is_away_the_newest_wait_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(JobWriter, "SHORTEST_PAUSE", 0.01)
    metrics, database = Metrics(), Broken(DatabaseError("gone"))
    writer = over(database, metrics, buffer_jobs=10, batch_jobs=100)
    for number in range(15):
        writer.record_job("acme", job(f"job-{number}"))
    async with asyncio.timeout(60):
        await database.tried.wait()
        database.tried.clear()
        await database.tried.wait()
        database.error = None
        while not database.written:  # noqa: ASYNC110 - it comes back by itself
            await asyncio.sleep(0.01)
        await writer.close()
    assert database.written == [[f"job-{number}" for number in range(5, 15)]]
    dropped = "scaimind_cache_dropped_jobs_total"
    assert value(metrics.registry, dropped, reason="full") == 5
    assert value(metrics.registry, dropped, reason="shutdown") == 0


async def test_ten_thousand_jobs_that_are_listed_at_once_are_all_written_by_few_statements() -> (
    None
):
    class Counting(Broken):
        error = None

        def __init__(self) -> None:
            self.tried, self.written = asyncio.Event(), []

    metrics, database = Metrics(), Counting()
    writer = over(database, metrics)
    for number in range(10_000):
        writer.record_job("acme", job(f"job-{number}"))
    await writer.close()
    assert [len(set(ids)) for ids in database.written] == [100] * 100
    dropped = "scaimind_cache_dropped_jobs_total"
    for reason in ("full", "shutdown"):
        assert value(metrics.registry, dropped, reason=reason) == 0


@pytest.mark.parametrize("error", [psycopg2.ProgrammingError(), psycopg2.DataError(), KeyError()])
async def test_what_cannot_be_written_is_given_up_and_counted(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(JobWriter, "SHORTEST_PAUSE", 0.01)
    metrics, database = Metrics(), Broken(error)
    writer = over(database, metrics)
    writer.record_job("acme", job("refused"))
    async with asyncio.timeout(60):
        await database.tried.wait()
        database.error = None
        writer.record_job("acme", job("good"))
        await writer.close()
    assert database.written == [["good"]]
    assert value(metrics.registry, "scaimind_cache_dropped_jobs_total", reason="refused") == 1


async def test_a_stop_does_not_wait_for_a_database_that_is_away() -> None:
    metrics, database = Metrics(), Broken(DatabaseError("gone"))
    writer = over(database, metrics)
    writer.record_job("acme", job("one"))
    writer.record_job("acme", job("two"))
    async with asyncio.timeout(60):
        await writer.close()
    assert value(metrics.registry, "scaimind_cache_dropped_jobs_total", reason="shutdown") == 2


async def test_a_stop_gives_up_a_statement_that_does_not_end() -> None:
    class Hanging(Broken):
        async def write(self, statement: str, parameters: Any = ()) -> None:
            self.tried.set()
            await asyncio.Event().wait()

    metrics, database = Metrics(), Hanging(DatabaseError("never raised"))
    writer = over(database, metrics)
    writer.CLOSE_TIMEOUT = 0.05
    writer.record_job("acme", job())
    async with asyncio.timeout(60):
        await database.tried.wait()
        await writer.close()
    assert value(metrics.registry, "scaimind_cache_dropped_jobs_total", reason="shutdown") == 1


async def test_jobs_that_nobody_asked_for_are_deleted_with_their_tallies(
    migrated_pool: Pool, cache: JobCache
) -> None:
    old = [
        job(f"old-{number}", "COMPLETED", started=0, ended=1, updated=number)
        for number in range(1500)
    ]
    await write(migrated_pool, *old, job("young", "COMPLETED", started=0, ended=1))
    await migrated_pool.write(
        "UPDATE mod_scaimind_jobs SET synced_at = now() - interval '31 days'"
        " WHERE job_id LIKE 'old-%%'",
        (),
    )
    metrics = Metrics()
    writer = new_writer(migrated_pool, metrics, retention_days=30, purge_interval=0.01)
    async with asyncio.timeout(60):
        while value(metrics.registry, "scaimind_cache_purged_jobs_total") < 1500:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    await writer.close()
    assert await migrated_pool.read("SELECT job_id FROM mod_scaimind_jobs") == [("young",)]
    summary = await cache.summary("acme", days=90)
    assert summary.data["jobs"]["by_status"]["COMPLETED"] == 1
