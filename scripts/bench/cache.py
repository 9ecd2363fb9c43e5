"""Time every read of the job cache over a million jobs, and compare it without indexes and tallies.

.venv/bin/python -m scripts.bench.cache [--jobs 1000000] [--rounds 500]

Starts a PostgreSQL of its own with its default configuration, fills the cache
with jobs of 2,000 tenants and of one that has a fifth of all, and reads as the
API does: a connection pool, one statement, the answer's JSON. The peer reads the
same from the table of jobs alone, with no index but its primary key and no tallies.
"""

import argparse
import asyncio
import random
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import orjson
import psycopg2

from app.bridge.converters import to_json
from app.cache.jobs import JobCache
from app.cache.write_buffer import status_numbers
from app.database.migrate import migrate
from app.database.pool import Pool
from app.database.settings import DatabaseSettings
from app.local.bootstrap import make_database
from app.local.data_dir import DataDir
from app.local.postgres import Postgres, socket_folder
from scripts.bench.converters import job

LIMIT_MS = 50.0
HUGE = "huge"
TENANTS = 2000
CHUNK = 50_000

#: A job's place among all (g) decides its tenant, its status and its times.
LOAD = """
INSERT INTO mod_scaimind_jobs (
    tenant_id, job_id, revision, updated_at, status, status_at, message, name, priority, gpus,
    created_at, started_at, ended_at, job, synced_at
)
SELECT tenant_id, 'job_' || g, 7, coalesce(ended_at, created_at), status,
    coalesce(ended_at, created_at), 'as it is', 'run ' || md5(g::text), g %% 11, 1 + g %% 8,
    created_at, CASE WHEN status > 2 THEN created_at + interval '1 minute' END, ended_at,
    replace(%(job)s, 'THE_JOB', 'job_' || g)::json, now()
FROM (
    SELECT g, tenant_id, status, created_at,
        CASE WHEN status >= 10 THEN created_at + interval '1 minute'
            + make_interval(secs => 60 * exp(8 * (g::bigint * 7919 %% 1000) / 1000.0)) END
            AS ended_at
    FROM (
        SELECT g,
            CASE WHEN g %% 5 = 0 THEN %(huge)s ELSE 'tenant_' || (g * 31 %% %(tenants)s) END
                AS tenant_id,
            CASE WHEN g %% 1000 < 10 THEN 1 + g / 5 %% 9
                WHEN g %% 100 < 10 THEN 11 WHEN g %% 100 < 15 THEN 12
                WHEN g %% 100 = 15 THEN 13 ELSE 10 END AS status,
            now() - make_interval(secs => 90 * 86400.0 * (%(jobs)s - g) / %(jobs)s) AS created_at
        FROM generate_series(%(first)s, %(last)s) AS g
    ) AS kind
) AS timed
"""

#: A list without the indexes, counted.
PLAIN_LIST = """
SELECT job::text, status, synced_at, (
    SELECT count(*) FROM mod_scaimind_jobs
    WHERE tenant_id = %(tenant)s AND ({anything} OR status = ANY(%(statuses)s))
)
FROM mod_scaimind_jobs
WHERE tenant_id = %(tenant)s AND ({anything} OR status = ANY(%(statuses)s))
ORDER BY {order}, job_id LIMIT 101 OFFSET %(skip)s
"""
#: The summary of somebody who keeps no tallies.
PLAIN_SUMMARY = """
SELECT
    (SELECT json_agg(json_build_array(status, jobs, gpus)) FROM (
        SELECT status, count(*) AS jobs, sum(gpus) AS gpus FROM mod_scaimind_jobs
        WHERE tenant_id = %(tenant)s GROUP BY status) AS counts),
    (SELECT max(synced_at) FROM mod_scaimind_jobs WHERE tenant_id = %(tenant)s),
    (SELECT json_agg(days) FROM (
        SELECT ended_at::date, count(*), percentile_cont(ARRAY[0.5, 0.9, 0.99]) WITHIN GROUP (
            ORDER BY extract(epoch FROM ended_at - started_at))
        FROM mod_scaimind_jobs
        WHERE tenant_id = %(tenant)s AND status = 10 AND ended_at > now() - interval '90 days'
        GROUP BY 1) AS days),
    (SELECT array_agg(failure) FROM (
        SELECT job::text AS failure FROM mod_scaimind_jobs
        WHERE tenant_id = %(tenant)s AND status = 11 ORDER BY ended_at DESC LIMIT 10) AS failures)
"""

#: Statuses, whether it is a later page, order.
LISTS: dict[str, tuple[tuple[str, ...], bool, str]] = {
    "100 jobs, newest first": ((), False, ""),
    "100 jobs, 50 pages later": ((), True, ""),
    "100 jobs, a rare status": (("PAUSED",), False, ""),
    "100 jobs, three statuses": (("PAUSED", "FAILED", "COMPLETED"), False, ""),
    "100 jobs, by time of change": ((), False, "updated_at desc"),
    "100 jobs, by name": ((), False, "name"),
    "100 jobs, by status": ((), False, "status"),
    "100 jobs, by priority": ((), False, "priority desc"),
}
LATER_PAGE = 50

Read = Callable[[], Awaitable[Any]]


def main() -> int:
    """Print milliseconds per read and the ratio; 1 if a read is over the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--peer-rounds", type=int, default=3)
    given = parser.parse_args()
    return asyncio.run(run(given.jobs, given.rounds, given.peer_rounds))


async def run(jobs: int, rounds: int, peer_rounds: int) -> int:
    """Own the server for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="scaimind-bench-") as folder:
        data_dir = DataDir(Path(folder, "data"))
        data_dir.prepare()
        with socket_folder(data_dir) as sockets, data_dir.children_lock() as lock:
            server = Postgres(data_dir, tell=print, holding=lock.descriptor, socket_folder=sockets)
            await server.start()
            try:
                await server.during(asyncio.to_thread(make_database, server.dsn, server.data_dir))
                await asyncio.to_thread(load, server.dsn, jobs)
                return await measure(server.dsn, rounds, peer_rounds)
            finally:
                await server.service.stop()


def load(dsn: str, jobs: int) -> None:
    """Fill the cache; blocks."""
    migrate(dsn)
    text = orjson.dumps({**to_json(job()), "job_id": "THE_JOB"}).decode()
    began = perf_counter()
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
        indexes = drop_indexes(dsn)  # they are made faster afterwards
        for first in range(1, jobs + 1, CHUNK):
            cursor.execute(
                LOAD,
                {
                    "first": first,
                    "last": min(first + CHUNK - 1, jobs),
                    "jobs": jobs,
                    "job": text,
                    "huge": HUGE,
                    "tenants": TENANTS,
                },
            )
            connection.commit()
        for index in indexes:
            cursor.execute(index)
        connection.commit()
        connection.autocommit = True
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("SELECT pg_size_pretty(pg_total_relation_size('mod_scaimind_jobs'))")
        [(size,)] = cursor.fetchall()
    print(f"{jobs:,} jobs of {len(text):,} bytes loaded in {perf_counter() - began:.0f} s: {size}")


async def measure(dsn: str, rounds: int, peer_rounds: int) -> int:
    """Time the reads, and those of the peer."""
    pool = Pool(DatabaseSettings(dsn=dsn, statement_timeout=600))
    cache = JobCache(database=pool)
    kinds = {"huge": HUGE, "small": "tenant_1"}
    ours = {
        (name, kind): await times(read, rounds)
        for kind, tenant in kinds.items()
        for name, read in (await reads_of(cache, tenant)).items()
    }
    await asyncio.to_thread(drop_indexes, dsn)
    theirs = {
        (name, kind): await times(read, peer_rounds)
        for kind, tenant in kinds.items()
        for name, read in plain_reads(pool, tenant).items()
    }
    await pool.shut()

    print(f"{'milliseconds':<44} {'p50':>8} {'p99':>8} {'peer p50':>10} {'ratio':>8}")
    missed = 0
    for (name, kind), mine in ours.items():
        p50, p99 = median(mine), quantiles(mine, n=100)[98]
        missed += p99 > LIMIT_MS
        line = f"{name + ', ' + kind + ' tenant':<44} {p50:>8.2f} {p99:>8.2f}"
        if (name, kind) in theirs:
            peer = median(theirs[name, kind])
            line += f" {peer:>10.2f} {peer / p50:>7.1f}x"
        print(line)
    print(f"{'MISSED' if missed else 'met'}: every read under {LIMIT_MS:g} ms at p99")
    return int(missed > 0)


async def reads_of(cache: JobCache, tenant: str) -> dict[str, Read]:
    """Everything that the API reads."""

    async def page(statuses: Sequence[str] = (), page_token: str = "", order_by: str = "") -> bytes:
        stale = await cache.jobs(
            tenant, statuses=statuses, page_size=100, page_token=page_token, order_by=order_by
        )
        assert stale is not None
        return orjson.dumps(stale.data)

    async def one() -> bytes:
        stale = await cache.job(tenant, random.choice(names))
        assert stale is not None
        return orjson.dumps(stale.data)

    names = [each["job_id"] for each in orjson.loads(await page())["jobs"]]
    token = ""
    for _ in range(LATER_PAGE):
        token = orjson.loads(await page(page_token=token))["next_page_token"] or token
    return {
        "one job": one,
        **{
            name: partial(page, statuses, token if later else "", order)
            for name, (statuses, later, order) in LISTS.items()
        },
        "summary": lambda: cache.summary(tenant, days=90),
    }


def plain_reads(pool: Pool, tenant: str) -> dict[str, Read]:
    """Read the same from the table of jobs alone."""

    async def page(statuses: Sequence[str], later: bool, order: str) -> bytes:
        statement = PLAIN_LIST.format(order=order or "created_at DESC", anything=not statuses)
        rows = await pool.read(
            statement,
            {
                "tenant": tenant,
                "statuses": status_numbers(statuses),
                "skip": LATER_PAGE * 100 if later else 0,
            },
        )
        return orjson.dumps([orjson.Fragment(text) for text, *_ in rows])

    return {
        **{name: partial(page, *asked) for name, asked in LISTS.items()},
        "summary": lambda: pool.read(PLAIN_SUMMARY, {"tenant": tenant}),
    }


def drop_indexes(dsn: str) -> list[str]:
    """Leave the primary key, and return the statements that make the others; blocks."""
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'mod_scaimind_jobs'"
            " AND indexname LIKE '%_idx'"
        )
        found = cursor.fetchall()
        for name, _ in found:
            cursor.execute(f"DROP INDEX {name}")
        return [made for _, made in found]


async def times(read: Read, rounds: int) -> list[float]:
    """Time a read, in milliseconds; the first one warms up."""
    await read()
    found = []
    for _ in range(rounds):
        began = perf_counter()
        await read()
        found.append((perf_counter() - began) * 1000)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
