"""One stack and one browser for all; a profile of its own for each test."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext

from tests.console.browser import Window, chromium, new_key
from tests.functional.stack import Stack

#: GPUs that are declared, so that there is something to hold.
NODES = "gpus:3xL4"


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    var = tmp_path_factory.mktemp("stack") / "var"
    with Stack(var, SCAIMIND_COORDINATOR_VIRTUAL_NODES=NODES) as running:
        yield running


@pytest.fixture(scope="session")
def stranger(stack: Stack) -> str:
    """The key of another tenant, which has no jobs."""
    return new_key(stack, "--tenant", "other", "--user", "eve", "--preset", "engineer")[1]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    made = await browser.new_context(viewport={"width": 1440, "height": 900})
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="session")
async def window(context: BrowserContext, stack: Stack) -> AsyncIterator[Window]:
    opened = await Window.opened(context, stack)
    yield opened
    assert opened.complaints == []
