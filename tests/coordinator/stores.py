"""Stores for tests: one in SQLite, one in PostgreSQL."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from typing_extensions import override

from app.coordinator.database.leader_table import LeaderTable
from app.coordinator.database.postgres_connection import PostgresAddress
from app.coordinator.jobs.postgres_store import PostgresStore
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.store import Store
from app.coordinator.leadership.leadership import Leadership

SCHEMA = "coordinator"
#: Seconds that a statement may take: no time is under test.
PATIENCE = 300.0


class OpenStore(Protocol):
    """Opens a test's store; again after it was closed."""

    def __call__(self, committed: Callable[[frozenset[str]], None] = ...) -> Store: ...


@dataclass
class Term(Leadership):
    """A term that a test has taken by itself."""

    number: int
    lost: str = ""

    @property
    @override
    def term(self) -> int:
        return self.number

    @override
    def check(self) -> None:
        return

    @override
    def lose(self, reason: str) -> None:
        self.lost = reason


def take_term(dsn: str, *, seconds: float = 3600, schema: str = SCHEMA) -> Term:
    """Lead, whoever did before."""
    with closing(LeaderTable(PostgresAddress(dsn, schema), patience=PATIENCE)) as table:
        table.prepare()
        table.release(table.read().term)
        term = table.take(holder="a test", address="here", seconds=seconds, known=0)
    assert term is not None
    return Term(term)


def opener(kind: str, folder: Path, dsn: str) -> OpenStore:
    """What opens the store of a folder or of a database."""

    def open_store(committed: Callable[[frozenset[str]], None] = lambda _: None) -> Store:
        if kind == "sqlite":
            return SqliteStore(folder / "store.db", committed=committed)
        return PostgresStore(
            PostgresAddress(dsn, SCHEMA),
            leadership=take_term(dsn),
            note=folder / "store.epoch",
            patience=PATIENCE,
            committed=committed,
        )

    return open_store
