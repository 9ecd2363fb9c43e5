"""What a coordinator says of a database that it cannot use, and that it leaves alone then."""

import asyncio
import shutil
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from app.coordinator.database.leader_table import LeaderTable
from app.coordinator.database.postgres_connection import PostgresAddress, UnusableDatabase
from app.coordinator.failures import StoreUnavailable
from app.coordinator.jobs.postgres.steps import STEPS
from app.coordinator.jobs.postgres_store import PostgresStore
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.steps.store_steps import UnusableStore
from app.coordinator.ownership.candidacy import Candidacy, address_of
from app.coordinator.ownership.moving import move_to_postgresql
from app.coordinator.ownership.state import sqlite_path
from app.coordinator.settings.coordinator import BadConfig, CoordinatorConfig
from tests.coordinator.harness import config_for
from tests.coordinator.stores import PATIENCE, take_term
from tests.coordinator.test_lease import run
from tests.coordinator.test_moving import open_shared
from tests.coordinator.test_store import record
from tests.secrecy import secret

SCHEMA = "scaimind_coordinator"


async def lead(config: CoordinatorConfig) -> int:
    """Lead once, and give it back; returns the term."""
    candidacy = Candidacy(config, address="here:1", lost=lambda reason: None)
    try:
        async with asyncio.timeout(60):
            await candidacy.lead()
        return candidacy.lease.term
    finally:
        await asyncio.to_thread(candidacy.lease.close)


def limited(dsn: str) -> str:
    """A DSN of a role that owns nothing of the database."""
    with closing(psycopg2.connect(dsn)) as connection:
        role = f"limited_{connection.info.dbname}"
    run(dsn, f"CREATE ROLE {role}")
    return make_dsn(dsn, options=f"-c role={role}")


@pytest.mark.parametrize("form", ["host", "postgresql://u:{}@[/db", "pass={}", "\udcff{}"])
async def test_what_is_no_connection_string_is_refused_and_not_quoted(
    tmp_path: Path, form: str
) -> None:
    password = secret("password-in-a-dsn")
    config = config_for(tmp_path, database_dsn=form.format(password))
    with pytest.raises(BadConfig, match="DATABASE_DSN: the connection string is not") as refused:
        await lead(config)
    assert password not in str(refused.value)


async def test_a_role_without_rights_is_told_what_it_needs(
    tmp_path: Path, postgres_dsn: str
) -> None:
    config = config_for(tmp_path, database_dsn=limited(postgres_dsn))
    with pytest.raises(BadConfig, match=r"permission denied for database .*GRANT CREATE"):
        await lead(config)
    SqliteStore(sqlite_path(tmp_path)).close()
    with pytest.raises(UnusableDatabase, match="permission denied"):
        move_to_postgresql(config, progress=lambda *_: None)
    # A schema that somebody else has made is not the role's either.
    run(postgres_dsn, f"CREATE SCHEMA {SCHEMA}")
    with pytest.raises(BadConfig, match="DATABASE_DSN: the database refused"):
        await lead(config)


async def test_a_schema_that_was_made_for_the_role_is_enough(
    tmp_path: Path, postgres_dsn: str
) -> None:
    dsn = limited(postgres_dsn)
    with closing(psycopg2.connect(postgres_dsn)) as connection:
        name = connection.info.dbname
    run(postgres_dsn, f"CREATE SCHEMA {SCHEMA} AUTHORIZATION limited_{name}")
    config = config_for(tmp_path, database_dsn=dsn)
    assert await lead(config) == 1
    with closing(await asyncio.to_thread(open_shared, config)) as store:
        with store.transaction():
            store.save_jobs([record("a")])
        # A right that is taken away for a while fails what is done meanwhile, and no more.
        run(postgres_dsn, f"REVOKE ALL ON {SCHEMA}.jobs FROM limited_{name}")
        with pytest.raises(StoreUnavailable, match="permission denied for table jobs"):
            store.unfinished()
        with pytest.raises(StoreUnavailable, match="permission denied"), store.transaction():
            store.save_jobs([record("b")])
        run(postgres_dsn, f"GRANT ALL ON {SCHEMA}.jobs TO limited_{name}")
        assert [job.job_id for job in store.unfinished()] == ["a"]


def test_jobs_belong_to_one_data_directory(tmp_path: Path, postgres_dsn: str) -> None:
    """Another one has no file of them: each run would begin anew."""
    own, other = tmp_path / "own", tmp_path / "other"
    for each in (own, other):
        each.mkdir()

    def open_with(directory: Path) -> None:
        PostgresStore(
            PostgresAddress(postgres_dsn, SCHEMA),
            leadership=take_term(postgres_dsn, schema=SCHEMA),
            note=directory / "note",
            patience=PATIENCE,
            directory=directory,
        ).close()

    open_with(own)
    open_with(own)
    with pytest.raises(UnusableStore, match=r"belong to another data directory than .*other"):
        open_with(other)
    assert [each.name for each in other.iterdir() if "id" in each.name] == []
    # It is a copy that was put elsewhere.
    shutil.copytree(own, other, dirs_exist_ok=True)
    open_with(other)
    # The files are lost.
    for file in other.iterdir():
        file.unlink()
    with pytest.raises(UnusableStore):
        open_with(other)
    run(postgres_dsn, f"DELETE FROM {SCHEMA}.data_directory")
    open_with(other)
    with pytest.raises(UnusableStore):
        open_with(own)


async def test_one_that_is_older_than_the_schema_does_not_take_the_lead(
    tmp_path: Path, postgres_dsn: str
) -> None:
    config = config_for(tmp_path, database_dsn=postgres_dsn)
    assert await lead(config) == 1
    newer = len(STEPS) + 1
    run(postgres_dsn, f"UPDATE {SCHEMA}.schema_version SET version = {newer}")
    with pytest.raises(BadConfig, match=f"has version {newer}.*start the newer coordinator"):
        await lead(config)
    with closing(LeaderTable(address_of(config), patience=60)) as table:
        # Those that can read it were not disturbed.
        assert table.read().term == 1


async def test_one_that_stands_by_ends_once_the_schema_is_newer(
    tmp_path: Path, postgres_dsn: str
) -> None:
    config = config_for(tmp_path, database_dsn=postgres_dsn, lease_seconds=600.0)
    leader = Candidacy(config, address="here:1", lost=lambda reason: None)
    await leader.lead()
    try:
        standby = asyncio.create_task(lead(config), name="standby")
        run(postgres_dsn, f"UPDATE {SCHEMA}.schema_version SET version = {len(STEPS) + 1}")
        with pytest.raises(BadConfig, match="start the newer coordinator"):
            await standby
    finally:
        await asyncio.to_thread(leader.lease.close)
