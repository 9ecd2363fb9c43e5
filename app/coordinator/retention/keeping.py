"""Puts together what deletes jobs, and runs it from the coordinator's start to its stop."""

from collections.abc import Callable
from typing import Self

from app.coordinator.data.drive import Drive
from app.coordinator.execution.controller import Controller
from app.coordinator.jobs.secrets import JobSecrets
from app.coordinator.jobs.store import Store
from app.coordinator.leadership.leadership import Leadership
from app.coordinator.retention.deletion import JobDeletion
from app.coordinator.retention.disk_bytes import DiskBytes
from app.coordinator.retention.kept_files import KeptFiles
from app.coordinator.retention.removals import Removals
from app.coordinator.retention.retention import Retention, RetentionRules
from app.coordinator.settings.coordinator import CoordinatorConfig


class Keeping:
    """Deletion on request, by retention, and the removal of files. An async context manager."""

    def __init__(
        self,
        config: CoordinatorConfig,
        *,
        controller: Controller,
        store: Store,
        drive: Drive,
        secrets: JobSecrets,
        leadership: Leadership,
        clock: Callable[[], int],
    ) -> None:
        files = KeptFiles(jobs=config.data_dir / "jobs", drive=drive)
        self._removals = Removals(store=store, files=files, secrets=secrets, leadership=leadership)
        self.deletion = JobDeletion(controller=controller, files=files, removals=self._removals)
        self.retention = Retention(
            rules=RetentionRules(
                days=config.retention_days,
                size_bytes=config.retention_bytes,
                interval=config.retention_interval,
            ),
            store=store,
            files=files,
            deletion=self.deletion,
            leadership=leadership,
            disk=DiskBytes(
                files=files,
                unfinished=lambda: tuple(controller.scheduler.jobs.values()),
                database=config.data_dir / "coordinator.db",
                folders={
                    "cache": config.data_dir / "cache",
                    "packages": config.data_dir / "environments",
                    "models": config.atlas_root,
                },
            ),
            clock=clock,
        )

    async def __aenter__(self) -> Self:
        """Go on with what is left of the coordinator before, and look for more."""
        self._removals.start()
        self.retention.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop soon; the next coordinator goes on."""
        await self.retention.close()
        await self._removals.close()
