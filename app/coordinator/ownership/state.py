"""Opens the coordinator's state: the store, and the right to change it."""

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from app.coordinator.jobs.sqlite_store import SqliteStore
from app.coordinator.jobs.steps.store_steps import UnusableStore
from app.coordinator.jobs.store import Store
from app.coordinator.leadership.leadership import Leadership, SoleLeadership
from app.coordinator.leadership.term_file import TermFile
from app.coordinator.ownership.data_directory import sole_owner
from app.coordinator.settings.coordinator import BadConfig, CoordinatorConfig

#: Told of each transaction that is stored: the tenants whose jobs it has changed.
Committed = Callable[[frozenset[str]], None]


@dataclass(frozen=True, slots=True)
class State:
    """What a coordinator works on, while it may."""

    leadership: Leadership
    #: Returns the store once this coordinator leads, however long that takes. To be called once;
    #: raises BadConfig, LeadershipLost.
    store: Callable[[], Awaitable[Store]]


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

    async def opened() -> Store:
        return store

    return State(leadership, opened)
