"""A coordinator that shares its state with others: it stands by until it leads."""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import closing
from secrets import token_hex
from typing import Final

import structlog

from app.coordinator.database.leader_table import Leader, LeaderTable
from app.coordinator.database.postgres_connection import PostgresAddress, UnusableDatabase
from app.coordinator.failures import FailureBackoff, LeadershipLost, StoreUnavailable
from app.coordinator.jobs.postgres.steps import STEPS, check_version
from app.coordinator.jobs.steps.store_steps import UnusableStore
from app.coordinator.leadership.term_file import TermFile
from app.coordinator.ownership.lease import Lease
from app.coordinator.settings.coordinator import BadConfig, CoordinatorConfig

#: Seconds between two looks at whether somebody leads.
_LOOK: Final = 0.25
#: Of the lease: how long one of its statements may take.
_PATIENCE: Final = 0.5

log = structlog.get_logger("scaimind.coordinator")


def address_of(config: CoordinatorConfig) -> PostgresAddress:
    """Return where the state is."""
    return PostgresAddress(config.database_dsn, config.database_schema)


class Candidacy:
    """Waits for the lead, in a thread. `leader` is who had it at the last look."""

    def __init__(
        self, config: CoordinatorConfig, *, address: str, lost: Callable[[str], None]
    ) -> None:
        """`address` is where this coordinator is called; `lost` is that of `Lease`."""
        self._config = config
        self._address = address
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{token_hex(4)}"
        self.leader: Leader | None = None
        #: Asked for by `lead`, and the caller's to close.
        self.lease = Lease(
            self._table(),
            seconds=config.lease_seconds,
            term_file=TermFile.of(config.data_dir),
            lost=lost,
            readable=len(STEPS),
        )

    def where(self) -> str:
        """Return the address of the coordinator that leads; empty if none is known to."""
        return self.leader.address if self.leader is not None and self.leader.leads else ""

    async def lead(self) -> None:
        """Return once the lease is held; it is kept from then on.

        Raises BadConfig if the data directory or the database does not let it, or if the
        schema is newer: those who can read it are to lead.
        """
        backoff = FailureBackoff()
        await self._prepare()
        while True:
            try:
                self.leader = await self._asked()
            except StoreUnavailable as error:
                backoff.after_failure()
                if backoff.worth_a_line:
                    log.warning("database_not_reached", reason=str(error))
            else:
                backoff = FailureBackoff()
                if self.leader is None:
                    self.lease.keep()
                    return
            await asyncio.sleep(_LOOK)

    async def _prepare(self) -> None:
        backoff = FailureBackoff()
        while True:
            try:
                await asyncio.to_thread(self._make_schema)
            except UnusableDatabase as error:
                raise BadConfig(f"{self._config.variable('database_dsn')}: {error}") from None
            except StoreUnavailable as error:
                seconds = backoff.after_failure()
                if backoff.worth_a_line:
                    log.warning("database_not_reached", reason=str(error))
                await asyncio.sleep(seconds)
            else:
                return

    def _make_schema(self) -> None:
        with closing(self._table()) as table:
            table.prepare()

    async def _asked(self) -> Leader | None:
        asking = asyncio.create_task(asyncio.to_thread(self._ask), name="lead")
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            # A thread cannot be cancelled: whoever closes the lease gives back what it takes.
            await asyncio.wait([asking])
            raise

    def _ask(self) -> Leader | None:
        try:
            leader = self.lease.try_take(holder=self._holder, address=self._address)
        except (OSError, ValueError, LeadershipLost) as error:
            raise BadConfig(f"{self._config.variable('data_dir')}: {error}") from None
        try:
            if leader is not None:
                check_version(leader.schema_version)
        except UnusableStore as error:
            raise BadConfig(f"{self._config.variable('database_dsn')}: {error}") from None
        return leader

    def _table(self) -> LeaderTable:
        return LeaderTable(
            address_of(self._config), patience=_PATIENCE * self._config.lease_seconds
        )
