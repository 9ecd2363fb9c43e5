"""A pool on a fresh database with the newest schema, and the loop that the gateway runs on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest
import uvloop

from app.cache.jobs import JobCache, Stale
from app.database.pool import Pool
from tests.databases import patient


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Others forgive more about sockets that are gone."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def migrated_pool(migrated_dsn: str) -> AsyncIterator[Pool]:
    pool = Pool(patient(migrated_dsn, pool_min=0, pool_max=4))
    yield pool
    await pool.shut()


class DecodedCache(JobCache):
    """Its jobs as a client reads them."""

    async def job(self, *args: Any, **kwargs: Any) -> Stale | None:
        return _decoded(await super().job(*args, **kwargs))

    async def jobs(self, *args: Any, **kwargs: Any) -> Stale | None:
        return _decoded(await super().jobs(*args, **kwargs))


def _decoded(stale: Stale | None) -> Stale | None:
    return stale and replace(stale, data=orjson.loads(orjson.dumps(stale.data)))


@pytest.fixture
def cache(migrated_pool: Pool) -> JobCache:
    return DecodedCache(database=migrated_pool)
