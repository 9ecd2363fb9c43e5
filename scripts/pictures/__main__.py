"""A stack with jobs to look at, and a browser that goes through the console's pages."""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from playwright.async_api import Browser

from tests.console.browser import Window, chromium
from tests.functional.stack import PROJECT, Stack

IMAGES = PROJECT / "docs/images"
SCHEMES = ("light", "dark")
#: Steps a second: curves and logs that grow while one looks.
PACE = "40"
LABELS = {"team": "nlp"}


def fill(stack: Stack) -> dict[str, str]:
    """Submit jobs in most of their states, and wait until there is something to see."""
    done = stack.submit(name="baseline", labels=LABELS, steps="400", steps_per_second="80")
    stack.await_status(done, "COMPLETED")
    failed = stack.submit(name="baseline, typo", labels=LABELS, steps="many")
    stack.await_status(failed, "FAILED")
    running = stack.submit(
        name="characters, 20k steps", labels=LABELS, steps="20000", steps_per_second=PACE
    )
    stack.await_status(running, "TRAINING")
    for size in (64, 128, 256):
        stack.submit(
            name=f"sweep: width {size}", labels=LABELS, steps="4000", steps_per_second=PACE
        )
    while int(stack.get(f"/jobs/{running}")["progress"]["step"]) < 1200:
        time.sleep(1)
    return {"done": done, "failed": failed, "running": running}


def pages(jobs: dict[str, str]) -> dict[str, str]:
    """Name the pages, and where they are."""
    return {
        "jobs": "/jobs",
        "job": f"/jobs/{jobs['running']}",
        "compare": f"/jobs/{jobs['running']}?with={jobs['done']}",
        "new-job": f"/new?like={jobs['running']}",
        "cluster": "/cluster",
        "evaluations": "/evaluations",
    }


async def shoot(browser: Browser, stack: Stack, where: dict[str, str], folder: Path) -> None:
    """Take a picture of each page."""
    chosen = {"jobs", "job", "new-job", "cluster"} if folder == IMAGES else set(where)
    widths = (1440,) if folder == IMAGES else (1440, 1100, 390)
    for width in widths:
        for scheme in SCHEMES:
            context = await browser.new_context(
                viewport={"width": width, "height": 900},
                color_scheme="dark" if scheme == "dark" else "light",
                reduced_motion="reduce",
            )
            window = await Window.opened(context, stack)
            await window.go()
            await window.sign_in()
            await window.await_live()
            for name in sorted(chosen):
                await window.go(where[name])
                await window.await_live()
                await window.page.wait_for_load_state("load")
                # Curves and lines are fetched once the page is there.
                await asyncio.sleep(2)
                suffix = scheme if folder == IMAGES else f"{width}-{scheme}"
                await window.page.screenshot(path=folder / f"console-{name}-{suffix}.png")
                print(f"{name} {width} {scheme}", flush=True)
            if window.complaints:
                print("\n".join(window.complaints), file=sys.stderr)
            await context.close()


async def run(stack: Stack, where: dict[str, str], folder: Path) -> None:
    """Open the browser."""
    async with chromium() as browser:
        await shoot(browser, stack, where, folder)


def main() -> None:
    """Make the pictures."""
    folder = Path(sys.argv[1]).resolve() if sys.argv[1:] else IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data, Stack(Path(data) / "var") as stack:
        asyncio.run(run(stack, pages(fill(stack)), folder))


if __name__ == "__main__":
    main()
