"""Old and new replicas on one database: whichever of migration and new code comes first."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import orjson
import psycopg2
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from app.cache.writer import JobWriter
from app.database.migrate import migrate
from app.scaikey.api_keys import create_key, digest
from generated.mindcoordinator.v1.jobs_pb2 import JOB_STATUS_TRAINING, Job, ListJobsResponse
from tests.cache.jobs import value
from tests.cache.server import gateway_on

#: What a gateway of the first revision asks: exactly as it does, and for ever.
OLD_COLUMNS = (
    "key_id, tenant_id, user_id, roles, permissions, name, created_at, expires_at, revoked_at"
)
OLD_LOOKUP = f"SELECT key_hash, {OLD_COLUMNS} FROM mod_scaimind_api_keys WHERE key_hash = %s"
OLD_PROBE = "SELECT FROM mod_scaimind_api_keys LIMIT 1"
OLD_INSERT = (
    "INSERT INTO mod_scaimind_api_keys"
    " (key_id, key_hash, tenant_id, user_id, roles, permissions, name, expires_at)"
    f" VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING {OLD_COLUMNS}"
)
OLD_REVOKE = (
    "UPDATE mod_scaimind_api_keys SET revoked_at = coalesce(revoked_at, now())"
    f" WHERE key_id = %s RETURNING {OLD_COLUMNS}"
)


def migrate_to(dsn: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", "app.database:migrations")
    engine = sa.create_engine(dsn.replace("postgresql://", "postgresql+psycopg2://"))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()
    engine.dispose()


def ask(dsn: str, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []


def use_as_the_first_revision_does(dsn: str, name: str) -> None:
    """A key is made, found, revoked: each by the statement of then."""
    secret = digest(name)
    made = ask(dsn, OLD_INSERT, name, secret, "acme", "ann", ["tenant_viewer"], [], "old", None)
    [(key_hash, *found)] = ask(dsn, OLD_LOOKUP, secret)
    assert (bytes(key_hash), [tuple(found)]) == (secret, made)
    assert found[0] == name
    assert found[-1] is None
    revoked = ask(dsn, OLD_REVOKE, name)
    assert revoked[0][-1] is not None
    assert ask(dsn, OLD_LOOKUP, secret)[0][1:] == revoked[0]
    ask(dsn, OLD_PROBE)


def test_the_first_revisions_statements_work_on_the_newest_schema(migrated_dsn: str) -> None:
    use_as_the_first_revision_does(migrated_dsn, "old")
    # And what the new code makes is found by the old one.
    new = create_key(migrated_dsn, tenant_id="acme", user_id="ann", roles=["tenant_viewer"])
    [(_, key_id, *_)] = ask(migrated_dsn, OLD_LOOKUP, digest(new.secret))
    assert key_id == new.key.key_id


def test_old_replicas_go_on_while_new_ones_migrate(postgres_dsn: str) -> None:
    migrate_to(postgres_dsn, "0001")
    done = threading.Event()
    used = threading.Event()

    def old_replica(number: int) -> int:
        rounds = 0
        while not done.is_set() or not rounds:
            use_as_the_first_revision_does(postgres_dsn, f"old-{number}-{rounds}")
            rounds += 1
            used.set()
        return rounds

    with ThreadPoolExecutor(4) as threads:
        old = [threads.submit(old_replica, number) for number in range(2)]
        assert used.wait(60)
        try:
            new = [threads.submit(migrate, postgres_dsn) for _ in range(2)]
            assert sorted(each.result(60).changed for each in new) == [False, True]
        finally:
            done.set()
        assert all(each.result(60) for each in old)


def test_credentials_in_cached_jobs_are_masked(postgres_dsn: str) -> None:
    migrate_to(postgres_dsn, "0003")
    given = {
        "a": {"HF_TOKEN": "hf_x", "EPOCHS": "3"},
        "b": {"EPOCHS": "3"},
        "c": {"URL": "db://u:p@h"},
        "d": {},
    }
    jobs: list[dict[str, Any]] = [{"job_id": "e"}]
    jobs += [{"job_id": each, "training_config": {"environment": given[each]}} for each in given]
    for job in jobs:
        ask(
            postgres_dsn,
            "INSERT INTO mod_scaimind_jobs VALUES"
            " ('acme', %s, 1, now(), 4, now(), '', '', 5, 0, now(), NULL, NULL, %s, now())",
            job["job_id"],
            orjson.dumps(job).decode(),
        )

    migrate_to(postgres_dsn, "0004")

    found = dict(ask(postgres_dsn, "SELECT job_id, job FROM mod_scaimind_jobs"))
    shown = {**given, "a": {"HF_TOKEN": "***", "EPOCHS": "3"}, "c": {"URL": "***"}}
    for job_id, environment in shown.items():
        assert found[job_id] == {
            "job_id": job_id,
            "training_config": {"environment": environment},
        }
    assert found["e"] == {"job_id": "e"}
    assert ask(postgres_dsn, "SELECT jobs FROM mod_scaimind_job_counts") == [(5,)]


def test_times_that_are_unset_become_null_in_cached_jobs(postgres_dsn: str) -> None:
    migrate_to(postgres_dsn, "0004")
    whole = {
        "job_id": "a",
        "created_at": "2026-05-01T12:00:00Z",
        "scheduling_config": {"queue_name": "q"},
        "checkpoints": [{"checkpoint_id": "c"}, {"checkpoint_id": "d", "created_at": "then"}],
    }
    for job in (whole, {"job_id": "b"}):
        ask(
            postgres_dsn,
            "INSERT INTO mod_scaimind_jobs VALUES"
            " ('acme', %s, 1, now(), 4, now(), '', '', 5, 0, now(), NULL, NULL, %s, now())",
            job["job_id"],
            orjson.dumps(job).decode(),
        )

    migrate_to(postgres_dsn, "head")

    times = dict.fromkeys(("created_at", "started_at", "ended_at", "updated_at"))
    assert dict(ask(postgres_dsn, "SELECT job_id, job FROM mod_scaimind_jobs")) == {
        "a": {
            **times,
            **whole,
            "scheduling_config": {"queue_name": "q", "not_before": None},
            "checkpoints": [
                {"checkpoint_id": "c", "created_at": None},
                {"checkpoint_id": "d", "created_at": "then"},
            ],
        },
        "b": {**times, "job_id": "b"},
    }
    assert ask(postgres_dsn, "SELECT jobs FROM mod_scaimind_job_counts") == [(2,)]


async def test_new_replicas_serve_before_the_schema_is_migrated(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the revision before the job cache's: what is seen is counted as given up, or waits."""
    monkeypatch.setattr(JobWriter, "SHORTEST_PAUSE", 0.02)
    monkeypatch.setattr(JobWriter, "LONGEST_PAUSE", 0.05)
    migrate_to(postgres_dsn, "0002")
    async with gateway_on(postgres_dsn, buffer_jobs=5) as gateway:
        jobs = [Job(job_id=f"job-{n}", status=JOB_STATUS_TRAINING, revision=1) for n in range(8)]
        gateway.coordinator.answer("ListJobs", ListJobsResponse(jobs=jobs, total_count=8))
        gateway.coordinator.answer("GetJob", jobs[7])
        registry = gateway.metrics.registry

        assert (await gateway.ask("/jobs"))[0] == 200
        assert (await gateway.ask("/jobs/job-7"))[0] == 200
        await gateway.until(
            lambda: value(registry, "scaimind_cache_writes_total", result="failed") >= 2
        )
        assert value(registry, "scaimind_cache_dropped_jobs_total", reason="full") >= 3
        assert (await gateway.ask("/summary"))[0] == 503

        # Reads fall back on what they would be without the cache.
        await gateway.coordinator.stop()
        for path in ("/jobs", "/jobs/job-7"):
            status, body = await gateway.ask(path, Cache_Control="stale-if-error=600")
            assert (status, body["error"]["code"]) == (503, "COORDINATOR_UNAVAILABLE")

        # The migration comes; nothing has to be restarted.
        migrate_to(postgres_dsn, "head")
        await gateway.until(lambda: value(registry, "scaimind_cache_written_jobs_total") >= 5)
        status, body = await gateway.ask("/jobs/job-7", Cache_Control="stale-if-error=600")
        assert (status, body["meta"]["stale"]) == (200, True)
        assert (await gateway.ask("/summary"))[0] == 200
