"""One stack and one browser for the module; a profile of its own for each test."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext

from tests.console.browser import Window, chromium
from tests.functional.stack import Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack") / "var") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    made = await browser.new_context(viewport={"width": 1440, "height": 900})
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="module")
async def window(context: BrowserContext, stack: Stack) -> AsyncIterator[Window]:
    opened = await Window.opened(context, stack)
    yield opened
    assert opened.complaints == []
