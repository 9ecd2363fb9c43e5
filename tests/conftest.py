"""For the tests of every room: a real PostgreSQL, and a check that no task outlives its test."""

import asyncio
import functools
import itertools
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import hypothesis
import psycopg2
import pytest
import structlog
from aiohttp import web

from app.api.pages.static_files import StaticFile
from app.database.migrate import VERSION_TABLE, migrate
from app.gateway import application
from app.local.bootstrap import make_database
from app.local.data_dir import DataDir
from app.local.postgres import DATABASE, Postgres, socket_folder
from app.openapi import document

pytest_plugins = ["tests.leftovers", "tests.secrecy", "tests.skips"]

# How long an example takes tells of the machine, not of the code.
hypothesis.settings.register_profile("scaimind", deadline=None)
hypothesis.settings.load_profile("scaimind")


def pytest_configure(config: pytest.Config) -> None:
    """Make the profiles of properties with many examples, and of those that run a job for each.

    With `--all` they have three times as many.
    """
    times = 3 if config.getoption("--all") else 1
    hypothesis.settings.register_profile("often", max_examples=100 * times)
    hypothesis.settings.register_profile("whole jobs", max_examples=4 * times)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Cut off directories that are so deep that pytest's next runs could not remove them."""
    factory = getattr(session.config, "_tmp_path_factory", None)
    if factory is not None and factory._basetemp is not None:
        cut = ("-mindepth", "64", "-maxdepth", "64", "-type", "d", "-exec", "rm", "-rf", "{}", "+")
        subprocess.run(["find", factory.getbasetemp(), *cut], check=True)


@pytest.fixture(autouse=True)
def the_log_is_as_before() -> Iterator[None]:
    """Commands that run within this process configure its log."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test's bytes by their argument: those of a packed file differ between processes."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
async def no_task_is_left_over() -> AsyncIterator[None]:
    """Fails a test after which a task of its event loop is still there."""
    before = asyncio.all_tasks()
    yield
    # Set-up and tear-down of a fixture run in tasks of their own.
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    # What was cancelled or woken last may need a turn or two of the loop to end.
    if left:
        _, left = await asyncio.wait(left, timeout=60)
    assert not left, f"tasks left over: {sorted(task.get_name() for task in left)}: {left}"


@pytest.fixture(scope="session", autouse=True)
def pages_are_made_once() -> Iterator[None]:
    """Every gateway describes its routes and packs its pages, which takes longer than most tests.

    All gateways of this process have the same ones.
    """
    made: dict[object, dict[str, Any]] = {}

    @functools.wraps(document.build)
    def built_once(routes: Iterable[web.AbstractRoute]) -> dict[str, Any]:
        routes = list(routes)
        key = tuple((route.method, str(route.resource), route.handler) for route in routes)
        if key not in made:
            made[key] = document.build(routes)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(application, "build", built_once)
        patch.setattr(StaticFile, "of", functools.cache(StaticFile.of))
        yield


@pytest.fixture
def pages_are_made_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where nothing is tested."""
    for owner, name in ((application, "build"), (StaticFile, "of")):
        monkeypatch.setattr(owner, name, getattr(owner, name).__wrapped__)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL of this run's own, on a Unix socket; the DSN of its first database.

    It ends with this process, however that ends.
    """
    # A plugin is not to be imported before pytest does.
    from tests.secrecy import written_files

    with asyncio.Runner() as runner, tempfile.TemporaryDirectory(prefix="scaimind-") as folder:
        data_dir = DataDir(Path(folder, "data"))
        data_dir.prepare()
        with socket_folder(data_dir) as sockets, data_dir.children_lock() as lock:
            server = Postgres(data_dir, tell=_quiet, holding=lock.descriptor, socket_folder=sockets)
            runner.run(_start(server))
            try:
                # What a crash of the machine would lose is of no interest here.
                for setting in ("fsync", "full_page_writes", "synchronous_commit"):
                    _run(server.dsn, f"ALTER SYSTEM SET {setting} = off")
                # So that its log has all that it was ever sent.
                _run(server.dsn, "ALTER SYSTEM SET log_statement = 'all'")
                _run(server.dsn, "SELECT pg_reload_conf()")
                yield server.dsn
            finally:
                runner.run(server.service.stop())
                written_files(data_dir.root)


@pytest.fixture(scope="session")
def new_database(postgres_server: str) -> Callable[[str], str]:
    """Makes a database as a copy of another one, and returns its DSN."""
    numbers = itertools.count(1)

    def new(template: str = "template1") -> str:
        name = f"test_{next(numbers)}"
        _run(postgres_server, f"CREATE DATABASE {name} TEMPLATE {template}")
        return _dsn(postgres_server, name)

    return new


@pytest.fixture(scope="session")
def migrated_template(postgres_server: str) -> str:
    """The name of a database with the newest schema, to be copied."""
    _run(postgres_server, "CREATE DATABASE migrated")
    migrate(_dsn(postgres_server, "migrated"))
    return "migrated"


@pytest.fixture
def postgres_dsn(new_database: Callable[[str], str]) -> str:
    """A fresh database without tables."""
    return new_database("template1")


@pytest.fixture(scope="session")
def emptied_databases() -> list[str]:
    """Databases with the newest schema that tests have left, with nothing in them."""
    return []


@pytest.fixture
def migrated_dsn(
    new_database: Callable[[str], str], migrated_template: str, emptied_databases: list[str]
) -> Iterator[str]:
    """A database with the newest schema and nothing in it; what changes the schema copies it.

    Making and removing one takes longer than most tests.
    """
    dsn = emptied_databases.pop() if emptied_databases else new_database(migrated_template)
    yield dsn
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        # Of processes that were killed.
        cursor.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        cursor.execute(
            "SELECT string_agg(quote_ident(relname), ', ') FROM pg_stat_user_tables"
            " WHERE relname <> %s",
            (VERSION_TABLE,),
        )
        (tables,) = cursor.fetchone() or ("",)
        # Without the triggers, which truncate some of the others.
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(f"TRUNCATE {tables} RESTART IDENTITY")
        connection.commit()
    emptied_databases.append(dsn)


def _run(dsn: str, statement: str) -> None:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)


def _dsn(server: str, name: str) -> str:
    return server.replace(f"/{DATABASE}?", f"/{name}?")


async def _start(server: Postgres) -> None:
    await server.start()
    try:
        async with asyncio.timeout(60):
            await server.during(asyncio.to_thread(make_database, server.dsn, server.data_dir))
    except BaseException:
        await server.service.stop()
        raise


def _quiet(line: str) -> None:
    """What a terminal would be told."""
