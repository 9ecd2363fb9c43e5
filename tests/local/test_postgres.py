"""The database cluster of a data directory."""

import asyncio
import os
import shutil
import stat
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from app.local import postgres as postgres_module
from app.local.bootstrap import make_database
from app.local.data_dir import CannotStart, DataDir
from app.local.postgres import Postgres, dsn, socket_folder
from tests.cache.server import own_server

PATIENCE = 60.0


def answer(dsn: str) -> object:
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 6 * 7")
        (row,) = cursor.fetchall()
        return row[0]


async def test_everything_lies_behind_closed_doors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's own folder is closed to the user as whom PostgreSQL then runs."""
    closed = tmp_path / "closed"
    await asyncio.to_thread(_copy_programs, closed)
    closed.chmod(0o700)
    programs = closed / "wheel" / "pginstall" / "bin"
    monkeypatch.setattr(postgres_module, "programs", lambda: programs)
    data_dir = DataDir(closed / "a folder" / "var")
    data_dir.prepare()
    said: list[str] = []
    with socket_folder(data_dir) as folder, data_dir.children_lock() as lock:
        server = Postgres(data_dir, tell=said.append, holding=lock.descriptor, socket_folder=folder)
        async with asyncio.timeout(PATIENCE):
            await server.start()
            try:
                await server.during(asyncio.to_thread(make_database, server.dsn, data_dir))
                assert await asyncio.to_thread(answer, server.dsn) == 42
                for password in ("", "guessed"):
                    with pytest.raises(psycopg2.OperationalError, match="password"):
                        await asyncio.to_thread(answer, dsn(folder, password=password))
            finally:
                await server.service.stop()
    assert said == ["Creating the database", "Starting PostgreSQL"]
    assert stat.S_IMODE(data_dir.postgres_password.stat().st_mode) == 0o600
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert stat.S_IMODE(data_dir.postgres.stat().st_mode) == 0o700


async def test_a_server_that_exits_ends_what_waits_for_it(tmp_path: Path) -> None:
    async with own_server(tmp_path) as server, asyncio.timeout(PATIENCE):
        waiting = asyncio.create_task(server.during(asyncio.Event().wait()))
        await server.service.stop()
        with pytest.raises(CannotStart, match=r"PostgreSQL exited with status 0 during startup"):
            await waiting


async def test_a_password_that_is_not_the_database_s_is_named(tmp_path: Path) -> None:
    async with own_server(tmp_path) as server:
        wrong = dsn(DataDir(tmp_path).root / "run", password="guessed")
        with pytest.raises(CannotStart, match=r"rejected the password in \S+postgres-password"):
            await asyncio.to_thread(make_database, wrong, server.data_dir)


async def test_the_log_of_a_failed_statement_has_none_of_its_values(tmp_path: Path) -> None:
    value = "what a caller sent"

    def fail(dsn: str) -> None:
        with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE seen (value text PRIMARY KEY, size int CHECK (size > 0))")
            cursor.execute("INSERT INTO seen VALUES (%s, 1)", (value,))
            connection.commit()
            for size in (1, 0):
                with pytest.raises(psycopg2.IntegrityError):
                    cursor.execute("INSERT INTO seen VALUES (%s, %s)", (value, size))
                connection.rollback()

    async with own_server(tmp_path) as server:
        await asyncio.to_thread(fail, server.dsn)
    log = DataDir(tmp_path).logs.joinpath("postgres.log").read_text()
    assert "duplicate key" in log
    assert "violates check constraint" in log
    assert value not in log


def _copy_programs(target: Path) -> None:
    """Copy what the wheel installed; its libraries lie beside the package."""
    installed = postgres_module.programs().parent
    package = installed.parent
    shutil.copytree(installed, target / "wheel" / "pginstall", symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name)


def test_a_cluster_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir = DataDir(tmp_path)
    data_dir.prepare()
    data_dir.postgres.mkdir()
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(CannotStart, match="belongs to another user"):
        Postgres(data_dir, tell=print, holding=0, socket_folder=tmp_path)


def test_a_wheel_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_module, "find_spec", lambda name: None)
    with pytest.raises(CannotStart, match=r"scaimind-gateway\[local\]"):
        postgres_module.programs()


def test_a_server_that_is_killed_leaves_nothing_outside_its_directory(postgres_dsn: str) -> None:
    with closing(psycopg2.connect(postgres_dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW dynamic_shared_memory_type")
        assert cursor.fetchone() == ("mmap",)
