"""A Chromium with the console in it, and everything that it complained of."""

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, BrowserContext, Locator, Page, async_playwright

from tests.functional.stack import PROJECT, Stack, environ
from tests.programs import program

#: Milliseconds after which a test that waits gives up: a net, not an expectation.
PATIENCE = 120_000


@dataclass
class Window:
    """One page of the console, in a profile of its own or in that of another window."""

    page: Page
    stack: Stack
    #: What the page's console, its errors and its policy said.
    complaints: list[str] = field(default_factory=list)

    @classmethod
    async def opened(cls, context: BrowserContext, stack: Stack) -> "Window":
        """Open a tab."""
        context.set_default_timeout(PATIENCE)
        window = cls(await context.new_page(), stack)
        window.page.on("console", window._heard)
        window.page.on("pageerror", lambda error: window.complaints.append(str(error)))
        return window

    def _heard(self, message: Any) -> None:
        # Answers that are refusals are told by the browser, too: the tests ask for some.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.complaints.append(message.text)

    async def go(self, path: str = "") -> None:
        """Load an address of the console."""
        await self.page.goto(f"{self.stack.url}/console{path}")

    async def sign_in(self, key: str | None = None) -> None:
        """Sign in on the page that asks for it."""
        await self.page.get_by_label("API key or token").fill(key or self.stack.key)
        await self.page.get_by_role("button", name="Sign in").click()

    async def await_live(self) -> None:
        """Wait until the state is there, and live."""
        await self.page.get_by_text("Live", exact=True).wait_for()


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run Debian's Chromium."""
    # A folder of its own for what it leaves when it is killed. Its path is short: there is a
    # socket in it.
    with tempfile.TemporaryDirectory(prefix="b-") as own:
        async with _launched({**os.environ, "TMPDIR": own}) as browser:
            yield browser


@asynccontextmanager
async def _launched(environment: dict[str, str]) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            env=dict(environment),
            executable_path=program("chromium", "chromium-browser"),
            # A place is where it was scrolled to at once, not after an animation.
            args=["--no-sandbox", "--disable-smooth-scrolling"],
            timeout=PATIENCE,
        )
        try:
            yield browser
        finally:
            await browser.close()


def row_of(page: Page, job: str) -> Locator:
    """The row of a job in the table of jobs."""
    return page.get_by_role("row").filter(has=page.locator(f'a[href$="{job}"]'))


def ran(command: list[str], stack: Stack, **settings: str) -> str:
    """Run a command against the stack, and return all that it said."""
    return subprocess.run(
        command,
        cwd=PROJECT,
        env=environ(stack.data_dir) | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    ).stdout


def new_key(stack: Stack, *arguments: str) -> tuple[str, str]:
    """Make a key on the command line: its id, and the key."""
    command = [sys.executable, "-m", "app", "keys", "create", *arguments]
    words = ran(command, stack).split()
    return (
        next(word.strip(".,:()") for word in words if word.startswith("key_")),
        next(word for word in words if word.startswith("sgk_")),
    )
