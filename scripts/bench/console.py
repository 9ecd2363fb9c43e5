"""The console in Debian's Chromium: frame times, elements, and rows fetched.

    python -m scripts.bench.console [--lines 1000000] [--seconds 10]

Starts a stack of its own. Frames are those of requestAnimationFrame, beside those of an empty
page in the same browser: a machine without a display draws by its processor. `rows fetched` are
entries that `GET /log-entries` was asked for; those that came by the stream are `lines`.
"""

import argparse
import asyncio
import json
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.async_api import Browser, Page, Request, Route

from tests.console.browser import Window, chromium
from tests.console.test_log_functional import TALKER, WRITER, submit
from tests.functional.stack import Stack

JOBS = 10_000
#: Places of a log or a table that are scrolled to.
PLACES = 40

#: Times between frames, in milliseconds, until a promise has settled.
_FRAMES = """async ([seconds, places, selector]) => {
    const times = [];
    const begun = performance.now();
    let last = begun, place = 0;
    const window_ = document.scrollingElement;
    const box = selector === "window" ? window_ : document.querySelector(selector);
    while (performance.now() - begun < seconds * 1000) {
        const now = await new Promise(requestAnimationFrame);
        times.push(now - last);
        last = now;
        const due = Math.floor((performance.now() - begun) / (seconds * 1000) * places);
        if (due > place) {
            place = due;
            box.scrollTop = place / places * (box.scrollHeight - box.clientHeight);
        }
    }
    return times.slice(1);
}"""


@dataclass
class Counted:
    """What a page asked for."""

    requests: int = 0
    rows: int = 0
    paths: dict[str, int] = field(default_factory=dict)

    def watch(self, page: Page) -> None:
        """Count from now on."""
        page.on("request", self._asked)

    def _asked(self, request: Request) -> None:
        url = urlsplit(request.url)
        if "/v1/" not in url.path:
            return
        self.requests += 1
        name = url.path.rpartition("/")[2]
        self.paths[name] = self.paths.get(name, 0) + 1
        if name == "log-entries":
            self.rows += int(parse_qs(url.query).get("limit", ["0"])[0])


async def frames(
    page: Page, seconds: float, *, places: int = 0, box: str = "window"
) -> list[float]:
    """Times between frames, while the box is scrolled to places all over it."""
    times: list[float] = await page.evaluate(_FRAMES, [seconds, places, box])
    return sorted(times)


def line(title: str, times: list[float], **more: Any) -> None:
    """Print one measurement."""

    def share(part: float) -> float:
        return times[min(len(times) - 1, int(part * len(times)))]

    rest = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in more.items())
    print(
        f"{title}: {len(times)} frames, {share(0.5):.1f} ms in the middle,"
        f" {share(0.95):.1f} ms of 95 %, {share(0.99):.1f} ms of 99 %, {times[-1]:.1f} ms at most"
        + (f"; {rest}" if rest else ""),
        flush=True,
    )


async def elements(page: Page) -> int:
    """How many elements the page has."""
    count: int = await page.evaluate("document.querySelectorAll('*').length")
    return count


async def opened(browser: Browser, stack: Stack, path: str) -> tuple[Window, Counted]:
    """A page of the console, signed in."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    window, counted = await Window.opened(context, stack), Counted()
    counted.watch(window.page)
    await window.go(path)
    await window.sign_in()
    await window.await_live()
    return window, counted


async def talking(browser: Browser, stack: Stack, seconds: float) -> None:
    """A job that says two hundred lines a second, and four points of a curve."""
    job = submit(stack, TALKER)
    stack.await_status(job, "TRAINING")
    window, counted = await opened(browser, stack, f"/jobs/{job}")
    await window.page.locator(".chart canvas").first.wait_for()
    last = """Number([...document.querySelectorAll(".line .gutter")].at(-1)
        .textContent.replace(/[^0-9]/g, ""))"""
    before = await window.page.evaluate(last)
    times = await frames(window.page, seconds)
    said = await window.page.evaluate(last) - before
    line(
        "200 lines a second, with a chart",
        times,
        lines=said,
        rows_fetched=counted.rows,
        elements=await elements(window.page),
    )
    stack.post(f"/jobs/{job}/cancel", {})
    await window.page.context.close()


async def long_log(browser: Browser, stack: Stack, seconds: float, lines: int) -> None:
    """A log that is scrolled through from its beginning to its end."""
    job = submit(stack, WRITER.replace("COUNT", str(lines)))
    stack.await_status(job, "COMPLETED")
    window, counted = await opened(browser, stack, f"/jobs/{job}")
    await window.page.locator(".line .text").first.wait_for()
    times = await frames(window.page, seconds, places=PLACES, box="[role=log]")
    line(
        f"{lines:,} lines, scrolled to {PLACES} places",
        times,
        rows_fetched=counted.rows,
        requests=counted.requests,
        elements=await elements(window.page),
    )
    await window.page.context.close()


async def many_jobs(browser: Browser, stack: Stack, seconds: float) -> None:
    """The table of jobs, whose states are made up: a stack cannot run so many."""
    begun = datetime.now(UTC)
    states = (
        {
            **{"job_id": f"job-{number:020d}", "name": f"sweep {number}", "user_id": "ann"},
            **{"status": "TRAINING", "message": "Run 1 on local.", "revision": 1},
            "created_at": (begun - timedelta(seconds=number)).isoformat(),
            "progress": {"step": number % 100, "total_steps": 100, "loss": 1.0},
        }
        for number in range(JOBS)
    )
    body = "".join(f"event: job\ndata: {json.dumps(state)}\n\n" for state in states)
    body += f'event: synced\ndata: {{"jobs": {JOBS}}}\n\n'

    async def told(route: Route) -> None:
        await route.fulfill(content_type="text/event-stream", body=f"retry: 60000\n\n{body}")

    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    window = await Window.opened(context, stack)
    await window.page.route("**/events?*", told)
    await window.go("/jobs")
    await window.sign_in()
    await window.page.locator("[data-row]").first.wait_for()
    times = await frames(window.page, seconds, places=PLACES)
    rows = await window.page.locator("[data-row]").count()
    line(
        f"{JOBS:,} jobs, scrolled to {PLACES} places",
        times,
        rows=rows,
        elements=await elements(window.page),
    )
    await context.close()


async def run(stack: Stack, seconds: float, lines: int) -> None:
    """Measure all of it."""
    async with chromium() as browser:
        page = await browser.new_page()
        line("an empty page", await frames(page, seconds))
        await page.close()
        await talking(browser, stack, seconds)
        await many_jobs(browser, stack, seconds)
        await long_log(browser, stack, seconds, lines)


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as data, Stack(Path(data) / "var") as stack:
        asyncio.run(run(stack, given.seconds, given.lines))


if __name__ == "__main__":
    main()
