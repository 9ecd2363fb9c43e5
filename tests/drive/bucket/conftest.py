"""A gateway whose drive is in a bucket; no coordinator is behind it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from app.drive.settings import DriveSettings
from tests.drive.asking import DriveClient
from tests.drive.conftest import NOWHERE
from tests.objects.conftest import bucket, prefix, store
from tests.replicas import Replica, new_key, replica, settings_for

__all__ = ["bucket", "prefix", "store"]

if TYPE_CHECKING:
    from app.objects.s3 import S3Store
    from tests.objects.buckets import Bucket

#: Makes a gateway with these settings of the drive.
Serve = Callable[..., AbstractAsyncContextManager["ServedBucket"]]


@dataclass(frozen=True, slots=True)
class ServedBucket:
    """The store, a gateway that serves it, and its tenant `acme`."""

    store: "S3Store"
    gateway: Replica
    dsn: str
    acme: DriveClient

    async def client(self, tenant: str, **grants: Any) -> DriveClient:
        """A client with a key of its own."""
        key = await new_key(self.dsn, tenant=tenant, **grants)
        return DriveClient(self.gateway, key.secret)


@pytest.fixture
def serve(migrated_dsn: str, bucket: "Bucket", store: "S3Store", prefix: str) -> Serve:
    """A gateway in front of the store; `port` is that of a proxy before it."""

    @asynccontextmanager
    async def served(*, port: int = 0, **changes: Any) -> AsyncIterator[ServedBucket]:
        drive: dict[str, Any] = {
            "url": f"s3://drive/{prefix}",
            "endpoint": f"http://127.0.0.1:{port or bucket.port}",
            "credentials_file": bucket.credentials,
            "call_timeout": 60.0,
            **changes,
        }
        settings = settings_for(migrated_dsn, NOWHERE, drive=DriveSettings(**drive))
        async with replica(settings) as gateway:
            key = await new_key(migrated_dsn, tenant="acme")
            yield ServedBucket(store, gateway, migrated_dsn, DriveClient(gateway, key.secret))

    return served


@pytest.fixture
async def served(serve: Serve) -> AsyncIterator[ServedBucket]:
    async with serve() as found:
        yield found
