"""Opens the state that several coordinators share. Imported only where there is one, for its
driver."""

import asyncio
from contextlib import ExitStack
from typing import Final

from app.coordinator.database.postgres_connection import UnusableDatabase
from app.coordinator.failures import LeadershipLost, StoreUnavailable
from app.coordinator.jobs.postgres_store import PostgresStore
from app.coordinator.jobs.steps.store_steps import UnusableStore
from app.coordinator.jobs.store import Store
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.ownership.candidacy import Candidacy, address_of
from app.coordinator.ownership.data_directory import shared_owner
from app.coordinator.ownership.state import Committed, State
from app.coordinator.settings.coordinator import BadConfig, CoordinatorConfig

#: Of the lease: how long a statement may hold up the event loop.
_HELD_UP: Final = 0.6


def open_shared_state(
    config: CoordinatorConfig,
    resources: ExitStack,
    *,
    candidacy: Candidacy,
    committed: Committed,
) -> State:
    """Have a part in the state in PostgreSQL; its store is opened once this coordinator leads.
    `resources` closes it.

    Raises BadConfig.
    """
    lease = candidacy.lease
    resources.enter_context(shared_owner(config))
    resources.callback(lease.close)

    def opened() -> Store:
        return _open_postgres(config, lease, committed)

    async def led() -> Store:
        await candidacy.lead()
        try:
            store = await asyncio.to_thread(opened)
        except (UnusableDatabase, UnusableStore) as error:
            raise BadConfig(f"{config.variable('database_dsn')}: {error}") from None
        except StoreUnavailable as error:
            raise LeadershipLost(str(error)) from None
        resources.callback(store.close)
        return store

    return State(lease, led)


def _open_postgres(
    config: CoordinatorConfig, leadership: Leadership, committed: Committed
) -> Store:
    return PostgresStore(
        address_of(config),
        leadership=leadership,
        note=config.data_dir / "coordinator.epoch",
        patience=_HELD_UP * config.lease_seconds,
        directory=config.data_dir,
        committed=committed,
    )
