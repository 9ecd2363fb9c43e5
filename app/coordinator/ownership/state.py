"""Opens the coordinator's state: the store, and the right to change it."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from app.coordinator.failures import LeadershipLost, StoreUnavailable
from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.steps.store_steps import UnusableStore
from app.coordinator.jobs.store import Store
from app.coordinator.leadership.leadership import Leadership, SoleLeadership
from app.coordinator.leadership.term_file import TermFile
from app.coordinator.ownership.candidacy import Candidacy, address_of
from app.coordinator.ownership.data_directory import shared_owner, sole_owner
from app.coordinator.settings.coordinator import BadConfig, CoordinatorConfig

#: Told of each transaction that is stored: the tenants whose jobs it has changed.
Committed = Callable[[frozenset[str]], None]


@dataclass(frozen=True, slots=True)
class State:
    """What a coordinator works on, while it may."""

    store: Store
    leadership: Leadership


def sqlite_path(data_dir: Path) -> Path:
    """Return where the store in SQLite is."""
    return data_dir / "coordinator.db"


def open_sole_state(
    config: CoordinatorConfig, resources: ExitStack, *, committed: Committed
) -> State:
    """Open the state in the data directory, for this coordinator alone. `resources` closes it.

    Raises BadConfig.
    """
    variable = config.variable("data_dir")
    resources.enter_context(sole_owner(config))
    try:
        # A term may be left of coordinators that shared this directory.
        leadership = SoleLeadership(TermFile.of(config.data_dir).read())
        store = SqliteStore(sqlite_path(config.data_dir), committed=committed)
    except (UnusableStore, sqlite3.Error, OSError, ValueError) as error:
        raise BadConfig(f"{variable}: {error}") from None
    resources.callback(store.close)
    return State(store, leadership)


async def open_shared_state(
    config: CoordinatorConfig,
    resources: ExitStack,
    *,
    candidacy: Candidacy,
    committed: Committed,
) -> State:
    """Open the state in PostgreSQL, once this coordinator leads. `resources` closes it.

    Raises BadConfig, LeadershipLost.
    """
    resources.enter_context(shared_owner(config))
    lease = await candidacy.lead()
    resources.callback(lease.close)

    def opened() -> Store:
        return _open_postgres(config, lease, committed)

    try:
        store = await asyncio.to_thread(opened)
    except UnusableStore as error:
        raise BadConfig(f"{config.variable('database_dsn')}: {error}") from None
    except StoreUnavailable as error:
        raise LeadershipLost(str(error)) from None
    resources.callback(store.close)
    return State(store, lease)


def _open_postgres(
    config: CoordinatorConfig, leadership: Leadership, committed: Committed
) -> Store:
    # Its driver is imported only where it is used.
    from app.coordinator.jobs.postgres_store import PostgresStore

    return PostgresStore(
        address_of(config),
        leadership=leadership,
        note=config.data_dir / "coordinator.epoch",
        committed=committed,
    )
