"""The log of a job that writes much, as the console shows it: against what the job wrote."""

import re
from collections.abc import Iterator

import pytest
from playwright.async_api import Page, expect

from tests.console.browser import PATIENCE, Window
from tests.functional.stack import Stack

expect.set_options(timeout=PATIENCE)

pytestmark = pytest.mark.asyncio(loop_scope="session")

LINES = 50_000
#: Each line says its number, so that a page shows whether it is the right one.
WRITER = """
import sys
count = COUNT
for number in range(1, count + 1):
    if number == count // 2:
        print("ERROR the needle is here", number, flush=True)
    elif number % 10_000 == 0:
        print("WARNING ten thousand more", number)
    else:
        print("\\x1b[32mline\\x1b[0m <b>", number)
sys.stdout.flush()
"""
#: Two hundred lines and four points of a curve a second.
TALKER = """
import json, os, time
begun, number = time.monotonic(), 0
with open(os.environ["SCAIMIND_METRICS_FILE"], "a", buffering=1) as metrics:
    while True:
        number += 1
        print("said", number, flush=True)
        if number % 50 == 0:
            metrics.write(json.dumps({"step": number, "loss": 1 / number}) + "\\n")
        time.sleep(max(0, begun + number / 200 - time.monotonic()))
"""


def submit(stack: Stack, script: str) -> str:
    """Submit a script of the test's own; return the job's id."""
    path = stack.data_dir / "drive/local" / f"script-{abs(hash(script))}.py"
    path.write_text(script)
    return stack.submit(name="writer", script=path.name)


#: The lines in sight, as offset and text; null while one of them is still being fetched, or
#: while the first one is none of those that are waited for.
LINES_IN_SIGHT = """([from, to]) => {
    const number = (line) => Number(line.querySelector(".gutter").textContent.replace(/\\D/g, ""));
    const lines = [...document.querySelectorAll(".log-lines .line")];
    if (!lines.length || lines.some((line) => line.matches(".loading"))) return null;
    const first = number(lines[0]);
    if (first < from || first > to) return null;
    return lines.map((line) => [number(line), line.querySelector(".text").textContent]);
}"""


async def shown(page: Page, first: int = 1, last: int = 10**9) -> list[tuple[int, str]]:
    """The lines in sight, once they are there and begin with one of these."""
    found = await page.wait_for_function(LINES_IN_SIGHT, arg=[first, last])
    return [(offset, text) for offset, text in await found.json_value()]


def expected(stack: Stack, job: str, offset: int) -> str:
    """The entry's message, as the API has it, without its colours."""
    [entry] = stack.get(f"/jobs/{job}/log-entries?from={offset}&limit=1")["entries"]
    return re.sub("\x1b\\[[0-9]*m", "", entry["message"])


@pytest.fixture(scope="module")
def written(stack: Stack) -> str:
    """A job that has written all of its lines."""
    job = submit(stack, WRITER.replace("COUNT", str(LINES)))
    stack.await_status(job, "COMPLETED")
    return job


async def opened(window: Window, path: str) -> None:
    await window.go(path)
    await window.sign_in()
    await window.await_live()


async def scrolled(window: Window, stack: Stack, job: str) -> None:
    """Go to places all over a log, and compare what is there with the log."""
    page = window.page
    await opened(window, f"/jobs/{job}")
    last = stack.get(f"/jobs/{job}/log-entries?from=1&limit=1")["last_offset"]
    lines = await shown(page, last - 100)
    assert lines[-1][0] == last
    box = page.get_by_role("log")
    for share in (0.0, 0.13, 0.5, 0.77, 1.0):
        await box.evaluate(
            "(box, share) => { box.scrollTop = share * (box.scrollHeight - box.clientHeight) }",
            share,
        )
        near = int(share * last)
        lines = await shown(page, near - last // 50, near + last // 50)
        offsets = [offset for offset, _ in lines]
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
        for offset, text in (lines[0], lines[len(lines) // 2], lines[-1]):
            assert text == expected(stack, job, offset)
    # The wheel goes by lines, however long the log is.
    await box.hover()
    await page.mouse.wheel(0, -60)
    await expect(page.get_by_text("following")).to_have_count(0)
    await shown(page, offsets[0] - 3, offsets[0] - 3)
    assert await page.locator(".log-lines .line").count() < 100


async def test_a_log_is_scrolled_to_places_and_is_the_log(
    window: Window, stack: Stack, written: str
) -> None:
    await scrolled(window, stack, written)


@pytest.mark.slow
async def test_a_million_lines_are_scrolled_to_places(window: Window, stack: Stack) -> None:
    job = submit(stack, WRITER.replace("COUNT", "1_000_000"))
    stack.await_status(job, "COMPLETED")
    await scrolled(window, stack, job)


async def test_a_search_finds_a_line_far_away_and_goes_there(
    window: Window, stack: Stack, written: str
) -> None:
    page = window.page
    await opened(window, f"/jobs/{written}")
    await page.get_by_label("Search the whole log").fill("THE NEEDLE")
    await page.get_by_role("button", name="Search", exact=True).click()
    await expect(page.get_by_text("1 hits")).to_be_visible()
    await page.get_by_role("button", name="Next").click()
    marked = page.locator(".log-lines mark")
    await expect(marked).to_have_text("the needle")
    # An address leads to the line.
    line = page.locator(".line", has=page.locator("mark"))
    await line.locator(".gutter").click()
    address = page.url
    assert re.search(r"#[0-9a-z]+:\d+$", address)
    await page.goto("about:blank")
    await page.goto(address)
    await expect(page.locator(".line.chosen")).to_contain_text("the needle is here")


async def test_a_filter_shows_what_passes_and_nothing_else(
    window: Window, stack: Stack, written: str
) -> None:
    page = window.page
    await opened(window, f"/jobs/{written}?level=WARNING")
    await expect(page.locator(".log-lines .line")).to_have_count(LINES // 10_000 + 1)
    texts = [text for _, text in await shown(page)]
    assert all(text.startswith(("WARNING", "ERROR")) for text in texts)


async def test_what_a_job_writes_is_text_in_its_colours(
    window: Window, stack: Stack, written: str
) -> None:
    page = window.page
    await opened(window, f"/jobs/{written}")
    await page.get_by_role("log").evaluate("(box) => { box.scrollTop = 0 }")
    await expect(page.locator(".log-lines .ansi-green").first).to_have_text("line")
    assert await page.locator(".log-lines b").count() == 0


@pytest.fixture
def talker(stack: Stack) -> Iterator[str]:
    """A job that goes on talking."""
    job = submit(stack, TALKER)
    stack.await_status(job, "TRAINING")
    yield job
    stack.post(f"/jobs/{job}/cancel", {})


async def followed(window: Window, job: str) -> Page:
    """The page of a job whose log and chart are there, and live."""
    page = window.page
    await opened(window, f"/jobs/{job}")
    await expect(page.locator(".chart canvas").first).to_be_visible()
    await expect(page.locator(".line .text").first).to_be_visible()
    await expect(page.get_by_text("following")).to_be_visible()
    return page


#: Waits until the last line in sight is so many lines behind the one that it was.
MOVED = """async (lines) => {
    const last = () => Number(([...document.querySelectorAll(".line .gutter")].at(-1)
        ?.textContent ?? "").replace(/[^0-9]/g, ""));
    const before = last();
    while (last() < before + lines) await new Promise(requestAnimationFrame);
}"""
#: Counts the frames of a second.
FRAMES = """async () => {
    let count = 0, end = performance.now() + 1000;
    while (performance.now() < end) {
        await new Promise(requestAnimationFrame);
        count += 1;
    }
    return count;
}"""


async def test_a_log_that_is_followed_stays_small_and_holds_still_for_a_reader(
    window: Window, talker: str
) -> None:
    page = await followed(window, talker)
    await page.evaluate(MOVED, 300)
    assert await page.locator(".log-lines .line").count() < 100
    assert await page.locator("*").count() < 2500
    # Scrolled up, nothing moves under the reader, and what is new is counted.
    await page.get_by_role("log").hover()
    await page.mouse.wheel(0, -400)
    await expect(page.get_by_role("button", name=re.compile("new lines"))).to_be_visible()
    before = await shown(page)
    await expect(
        page.get_by_role("button", name=re.compile(r"[1-9]\d\d new lines"))
    ).to_be_visible()
    assert await shown(page) == before
    await page.get_by_role("button", name=re.compile("new lines")).click()
    await expect(page.get_by_text("following")).to_be_visible()


@pytest.mark.slow
async def test_two_hundred_lines_a_second_leave_time_to_draw(window: Window, talker: str) -> None:
    """At least half of the frames that an empty page draws."""
    page = await followed(window, talker)
    drawn = await page.evaluate(FRAMES)
    empty = await (await page.context.new_page()).evaluate(FRAMES)
    assert drawn * 2 >= empty
