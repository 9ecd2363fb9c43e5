"""A gateway with a drive in a folder of the test's own; no coordinator is behind it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.api.app_keys import UPLOADS
from app.drive.folder.room import Room
from app.drive.folder.uploads import FolderUploads
from app.drive.settings import DriveSettings
from tests.drive.asking import DriveClient
from tests.replicas import Replica, new_key, replica, settings_for

NOWHERE = "127.0.0.1:1"


def room_of(gateway: Replica) -> Room:
    """Where a gateway in front of a folder asks for room."""
    uploads = gateway.app[UPLOADS]
    assert isinstance(uploads, FolderUploads)
    return uploads.room


@dataclass(frozen=True, slots=True)
class Served:
    """The folder, the gateway that serves it, and its tenant `acme`."""

    root: Path
    gateway: Replica
    dsn: str
    acme: DriveClient

    @property
    def folder(self) -> Path:
        """Of the tenant `acme`."""
        return self.root / "acme"

    async def swept(self) -> None:
        """Wait for a whole look at the tenant `acme`: cleared, and counted."""
        await room_of(self.gateway).count("acme")

    @property
    def used(self) -> int:
        """What the tenant `acme` has, as far as it has been counted."""
        return room_of(self.gateway).used("acme")

    async def client(self, tenant: str, **grants: Any) -> DriveClient:
        """A client with a key of its own."""
        key = await new_key(self.dsn, tenant=tenant, **grants)
        return DriveClient(self.gateway, key.secret)


@pytest.fixture
def drive_settings(tmp_path: Path) -> DriveSettings:
    root = tmp_path / "drive"
    root.mkdir()
    return DriveSettings(dir=root)


@pytest.fixture
async def served(migrated_dsn: str, drive_settings: DriveSettings) -> AsyncIterator[Served]:
    settings = settings_for(migrated_dsn, NOWHERE, drive=drive_settings)
    async with replica(settings) as gateway:
        key = await new_key(migrated_dsn, tenant="acme")
        assert drive_settings.dir is not None
        yield Served(drive_settings.dir, gateway, migrated_dsn, DriveClient(gateway, key.secret))
