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
#: Nodes that are declared, for cells that somebody holds.
NODES = "gpu-a:4xL4,gpu-b:2xA100-80GB"


def evaluate(stack: Stack, job: str) -> None:
    """Score each checkpoint of a job, and wait until they are scored."""
    found = stack.get(f"/jobs/{job}/checkpoints?page_size=10")["checkpoints"]
    benchmark = {
        **{"name": "perplexity", "dataset": "scaidrive://local/corpus.jsonl"},
        "num_samples": 20,
    }
    made = [
        stack.post(
            "/evaluations",
            {
                **{"job_id": job, "checkpoint_id": each["checkpoint_id"]},
                "benchmarks": [benchmark],
            },
        )["evaluation_id"]
        for each in found
    ]
    for evaluation in made:
        stack.await_status(evaluation, "COMPLETED")


def sweep(stack: Stack, name: str, *, gpus: int) -> None:
    """Submit one of several that differ in little."""
    stack.submit(name=name, labels=LABELS, gpus=gpus, steps="4000", steps_per_second=PACE)


def fill(stack: Stack) -> dict[str, str]:
    """Submit jobs in most of their states, and wait until there is something to see."""
    done = stack.submit(
        name="baseline", labels=LABELS, checkpoints=200, steps="400", steps_per_second="80"
    )
    stack.await_status(done, "COMPLETED")
    evaluate(stack, done)
    failed = stack.submit(name="baseline, typo", labels=LABELS, steps="many")
    stack.await_status(failed, "FAILED")
    stack.post(f"/jobs/{failed}/retry", {})
    running = stack.submit(
        name="characters, 20k steps", labels=LABELS, steps="20000", steps_per_second=PACE
    )
    stack.await_status(running, "TRAINING")
    time.sleep(3)
    # A life with a stop in it.
    stack.post(f"/jobs/{running}/pause", {})
    stack.await_status(running, "PAUSED")
    time.sleep(2)
    stack.post(f"/jobs/{running}/resume", {})
    for size in (64, 128, 256):
        sweep(stack, f"sweep: width {size}", gpus=1)
    sweep(stack, "sweep: width 512", gpus=2)
    sweep(stack, "wants four GPUs", gpus=4)
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
        "retried": f"/jobs/{jobs['failed']}",
    }


async def shoot(browser: Browser, stack: Stack, where: dict[str, str], folder: Path) -> None:
    """Take a picture of each page."""
    chosen = (
        {"jobs", "job", "new-job", "cluster", "evaluations"} if folder == IMAGES else set(where)
    )
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


def with_nodes(folder: Path) -> Stack:
    """The stack whose pictures are taken."""
    return Stack(folder / "var", SCAIMIND_COORDINATOR_VIRTUAL_NODES=NODES)


def main() -> None:
    """Make the pictures."""
    folder = Path(sys.argv[1]).resolve() if sys.argv[1:] else IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data, with_nodes(Path(data)) as stack:
        asyncio.run(run(stack, pages(fill(stack)), folder))


if __name__ == "__main__":
    main()
