"""Migrations: once, whoever starts first, and without a word of the connection string."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
import structlog
from alembic import command
from alembic.config import Config

from app.database.connection import connected
from app.database.errors import DatabaseError, SchemaMissing
from app.database.migrate import migrate
from app.database.migrations import versions

VERSIONS = Path(versions.__file__).parent
NEWEST = max(path.name[:4] for path in VERSIONS.glob("[0-9]*.py"))


def tables(dsn: str) -> set[str]:
    with connected(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {name for (name,) in cursor.fetchall()}


@pytest.fixture
def events() -> Iterator[list[structlog.typing.EventDict]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


def test_an_empty_database_gets_the_schema(
    postgres_dsn: str, events: list[structlog.typing.EventDict]
) -> None:
    done = migrate(postgres_dsn)
    assert (done.before, done.after, done.changed) == (None, NEWEST, True)
    assert tables(postgres_dsn) >= {
        "mod_scaimind_api_keys",
        "mod_scaimind_jobs",
        "mod_scaimind_job_counts",
        "mod_scaimind_job_run_times",
        "mod_scaimind_schema",
    }
    assert [event["event"] for event in events] == ["schema_migrated"]


def test_nothing_to_do_is_done_in_silence(
    migrated_dsn: str,
    events: list[structlog.typing.EventDict],
    capfd: pytest.CaptureFixture[str],
) -> None:
    done = migrate(migrated_dsn)
    assert (done.before, done.after, done.changed) == (NEWEST, NEWEST, False)
    assert events == []
    assert capfd.readouterr() == ("", "")


def test_many_that_start_at_once_migrate_once(postgres_dsn: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(migrate, [postgres_dsn] * 8))
    assert sorted(each.changed for each in done) == [False] * 7 + [True]
    assert {each.after for each in done} == {NEWEST}


def test_many_processes_that_start_at_once_migrate_once(postgres_dsn: str) -> None:
    environ = {**os.environ, "SCAIMIND_DATABASE_DSN": postgres_dsn}
    command = (sys.executable, "-m", "app", "migrate")
    processes = [
        subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = sorted(process.communicate(timeout=60)[0] for process in processes)
    assert [process.returncode for process in processes] == [0] * 3
    assert said == [
        *[f"The schema is at revision {NEWEST} already.\n"] * 2,
        f"The schema is at revision {NEWEST}; it was at none.\n",
    ]


def test_a_schema_newer_than_the_code_is_left_alone(migrated_dsn: str) -> None:
    with connected(migrated_dsn) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE mod_scaimind_schema SET version_num = '9999'")
    done = migrate(migrated_dsn)
    assert (done.before, done.after) == ("9999", "9999")


def test_it_can_be_undone(migrated_dsn: str) -> None:
    config = Config()
    config.set_main_option("script_location", "app.database:migrations")
    engine = sa.create_engine(migrated_dsn.replace("postgresql://", "postgresql+psycopg2://"))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        connection.commit()
    engine.dispose()
    assert tables(migrated_dsn) == {"mod_scaimind_schema"}


@pytest.mark.parametrize(
    ("dsn", "why"),
    [
        ("postgresql://someone:the-password@127.0.0.1:1/db", "Connection refused"),
        ("host=/nowhere password=the-password", "No such file or directory"),
        ("the-password", "the connection string is not valid"),
    ],
)
def test_a_failure_says_why_and_nothing_of_the_connection_string(dsn: str, why: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        migrate(dsn)
    assert str(caught.value) == why
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_database_that_is_not_there(postgres_dsn: str) -> None:
    name = postgres_dsn.partition("@/")[2].partition("?")[0]
    with pytest.raises(DatabaseError, match="database does not exist") as caught:
        migrate(postgres_dsn.replace(name, "missing_one"))
    assert "missing_one" not in str(caught.value)


def test_without_the_schema_a_command_says_what_to_do(postgres_dsn: str) -> None:
    with (
        pytest.raises(SchemaMissing, match="python -m app migrate"),
        connected(postgres_dsn) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT FROM mod_scaimind_api_keys")


def test_what_raises_is_rolled_back(migrated_dsn: str) -> None:
    def fail_after_half() -> None:
        with connected(migrated_dsn) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE half_done (n int)")
            raise LookupError

    with pytest.raises(LookupError):
        fail_after_half()
    assert "half_done" not in tables(migrated_dsn)
