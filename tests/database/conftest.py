"""The loop that the gateway runs on."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Others forgive more about sockets that are gone."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def migrated_dsn(new_database: Callable[[str], str], migrated_template: str) -> str:
    """A database of this test's own, which may change the schema."""
    return new_database(migrated_template)
