"""What can go wrong while somebody looks: hostile texts, lost answers, old coordinators, keys."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, Route, expect

from tests.console.browser import PATIENCE, Window, row_of
from tests.functional.stack import Stack

expect.set_options(timeout=PATIENCE)

pytestmark = pytest.mark.asyncio(loop_scope="session")

API = "**/v1/modules/scaimind"
#: What no page may run, follow or draw.
HOSTILE = "<img src=x onerror=pwned=1>\"'><script>pwned=1</script>"
#: Names that every object of JavaScript has something under.
NAMES = ("constructor", "__proto__", "toString", HOSTILE)


@pytest.fixture(scope="module")
def job(stack: Stack) -> Iterator[str]:
    """A job that runs for as long as the tests of this module do."""
    job_id = stack.submit(steps="100000", steps_per_second="20")
    stack.await_status(job_id, "TRAINING")
    yield job_id
    # The jobs of the other modules need its place.
    stack.post(f"/jobs/{job_id}/cancel", {})


async def signed_in(window: Window, path: str) -> None:
    await window.go(path)
    await window.sign_in()
    await window.await_live()


async def answer(page: Page, path: str, data: Any, status: int = 200) -> None:
    """Have requests for a path of the API answered so."""
    key = "data" if status < 400 else "error"
    body = json.dumps({key: data})

    async def fulfil(route: Route) -> None:
        await route.fulfill(status=status, content_type="application/json", body=body)

    await page.route(re.compile(f"/v1/modules/scaimind{path}"), fulfil)


async def stream(page: Page, *events: tuple[str, Any]) -> None:
    """Have every stream of events answered so; it breaks off, and is asked for again."""
    body = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)

    async def fulfil(route: Route) -> None:
        await route.fulfill(content_type="text/event-stream", body=body)

    await page.route(f"{API}/events?*", fulfil)


async def test_no_text_of_a_job_a_node_or_a_log_becomes_anything_else(
    window: Window, stack: Stack, job: str
) -> None:
    page = window.page
    hostile = {
        **stack.get(f"/jobs/{job}"),
        **{"name": HOSTILE, "user_id": HOSTILE, "message": HOSTILE, "error_message": HOSTILE},
        **{"status": "FAILED", "output_path": f"scaidrive://local/{HOSTILE}", "run_count": 2},
        **{"parent_job_id": f"javascript:pwned=1//{HOSTILE}", "revision": 10**9},
        "labels": dict.fromkeys(NAMES, HOSTILE),
    }
    node = {
        **{"node_id": HOSTILE, "hostname": HOSTILE, "status": "ONLINE", "total_gpus": 1},
        "gpus": [{"index": 0, "type": HOSTILE, "allocated": True, "job_id": HOSTILE}],
        "running_job_ids": [HOSTILE],
    }
    queued = {"job_id": HOSTILE, "name": HOSTILE, "position": 1, "message": HOSTILE}
    queued |= {"reason": HOSTILE}
    lines = (HOSTILE, f"\x1b[31m{HOSTILE}\x1b[0m", f"\x1b]8;;javascript:pwned=1\x07{HOSTILE}\x07")
    entries = [
        {"offset": at, "level": "ERROR", "timestamp": "x", "message": text, "fields": {"block": at}}
        for at, text in enumerate((*lines, "\x1b[38;2;1;2;3mx", "\u202e evil", "\x00"), start=1)
    ]
    log = {"epoch": "e", "first_offset": 1, "last_offset": len(entries), "entries": entries}
    log |= {"scanned_to": len(entries), "next": None, "missing": []}
    points = {"x": [1, 2], "y": [1.0, 2.0]}
    scores = {"results": [{"name": HOSTILE, "scores": dict.fromkeys(NAMES, 1.0)}]}
    evaluation = {**hostile, **scores, "evaluation_id": HOSTILE, "job_id": "", "model_uri": HOSTILE}
    file = {"name": HOSTILE, "kind": "file", "size_bytes": 1, "addressable": True}
    await answer(page, f"/jobs/{job}$", hostile)
    await answer(page, r"/jobs\?", {"jobs": [hostile], "next_page_token": "", "total_count": 1})
    await answer(page, f"/jobs/{job}/log-entries", log)
    await answer(
        page, f"/jobs/{job}/metrics", {"x": "step", "series": dict.fromkeys(NAMES, points)}
    )
    await answer(page, f"/jobs/{job}/checkpoints", {"checkpoints": [{"checkpoint_id": HOSTILE}]})
    await answer(page, "/evaluations/", evaluation)
    await answer(page, r"/evaluations\?", {"jobs": [hostile], "total_count": 1})
    folder = {"data": {"entries": [file, {**file, "name": "..", "kind": "folder"}]}}
    await page.route("**/v1/drive/**", lambda route: route.fulfill(json=folder))
    metrics = ("metrics", {"sequence": 9, "step": 9, "timestamp": "x", "extra": {"other": 1.0}})
    await stream(
        page,
        *(("job", hostile), ("node", node), ("queue", {"queued_jobs": [queued]})),
        *(("synced", {"jobs": 1}), metrics),
    )
    await window.go("/jobs")
    await window.sign_in()
    await expect(page.get_by_role("row").nth(1)).to_be_visible()
    texts = {
        "/jobs": page.get_by_role("row").nth(1),
        f"/jobs/{job}": page.get_by_role("log"),
        "/cluster": page.get_by_role("heading", name="Queue"),
        "/evaluations": page.get_by_role("row").nth(1),
    }
    for path, there in texts.items():
        await window.go(path)
        await expect(there).to_be_visible()
        await expect(page.get_by_text(HOSTILE).first).to_be_attached()
        if path == f"/jobs/{job}":
            await expect(page.locator(".chart")).to_have_count(len(NAMES) + 1)
            await expect(page.get_by_role("button", name=HOSTILE)).to_be_attached()
        assert await page.evaluate("typeof pwned") == "undefined"
        assert await page.locator("img, #console script, iframe").count() == 0
        links = await page.locator("a").evaluate_all("(all) => all.map((a) => a.protocol)")
        assert set(links) == {"http:"}


async def test_enter_presses_what_has_the_focus(window: Window, stack: Stack, job: str) -> None:
    await signed_in(window, "/jobs")
    row = row_of(window.page, job)
    await row.get_by_role("button", name="Pause").focus()
    await window.page.keyboard.press("Enter")
    await expect(row).to_contain_text("Paused")
    assert window.page.url.endswith("/jobs")
    await row.get_by_role("button", name="Resume").focus()
    await window.page.keyboard.press("Enter")
    await expect(row).to_contain_text("Training")
    # With the focus on nothing, it opens the row that j and k have chosen.
    await window.page.evaluate("document.activeElement.blur()")
    await window.page.keyboard.press("Enter")
    await window.page.wait_for_url("**/console/jobs/*")


async def test_a_button_is_pressed_once_however_slow_the_gateway_is(
    window: Window, stack: Stack, job: str
) -> None:
    await signed_in(window, "/jobs")
    let_go, pressed = asyncio.Event(), []

    async def late(route: Route) -> None:
        pressed.append(route.request.url)
        await let_go.wait()
        await route.fulfill(status=200, json={"data": {}})

    await window.page.route(f"{API}/jobs/*/pause", late)
    row = row_of(window.page, job)
    await row.get_by_role("button", name="Pause").dblclick()
    await expect(row.get_by_role("button", name="Pause")).to_be_disabled()
    let_go.set()
    await expect(row.get_by_role("button", name="Pause")).to_be_enabled()
    assert len(pressed) == 1


async def test_after_a_refusal_in_mid_action_the_same_token_makes_the_page_live_again(
    window: Window, job: str
) -> None:
    page = window.page
    await signed_in(window, f"/jobs/{job}")
    error = {"code": "AUTH_TOKEN_INVALID", "message": "The token is not valid."}
    for path in (f"/jobs/{job}/pause", r"/events\?"):
        await answer(page, path, error, status=401)
    await page.get_by_role("button", name="Pause").click()
    await expect(page.get_by_text("Your session has ended")).to_be_visible()
    # No key reaches what waits behind the question.
    for _ in range(3):
        await page.keyboard.press("Escape")
    assert page.url.endswith(job)
    await expect(page.get_by_role("heading", name="a test's")).to_be_attached()
    await page.unroute_all()
    await window.sign_in()
    await expect(page.get_by_text("Your session has ended")).to_have_count(0)
    await window.await_live()


async def test_what_one_session_asked_for_is_not_shown_to_the_next(
    window: Window, stranger: str, job: str
) -> None:
    page = window.page
    await signed_in(window, "/jobs")
    let_go = asyncio.Event()

    async def hold(route: Route) -> None:
        response = await route.fetch()
        await let_go.wait()
        await route.fulfill(response=response)

    await page.route(f"{API}/jobs?page_size=100*", hold)
    async with page.expect_request(f"{API}/jobs?page_size=100*"):
        await page.get_by_role("button", name="Show jobs that ended").click()
    await page.get_by_role("button", name="Sign out").click()
    await window.sign_in(stranger)
    await expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    async with page.expect_response(f"{API}/jobs?page_size=100*"):
        let_go.set()
    await window.await_live()
    await page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")
    assert await page.locator("[data-row]").count() == 0


async def test_a_submission_whose_answer_is_lost_is_made_once(
    window: Window, stack: Stack, job: str
) -> None:
    page = window.page
    await signed_in(window, f"/new?like={job}")
    name = page.get_by_label("name *", exact=True).first
    await expect(name).to_have_value("a test's-2")
    await name.fill("made once")
    keys: list[str | None] = []

    async def lose(route: Route) -> None:
        if route.request.method != "POST" or "validate_only" in route.request.url:
            await route.fallback()
            return
        keys.append(await route.request.header_value("Idempotency-Key"))
        response = await route.fetch()
        if len(keys) == 1:
            await route.abort("connectionreset")
        else:
            await route.fulfill(response=response)

    await page.route(f"{API}/jobs", lose)
    submit = page.get_by_role("button", name=re.compile("^Submit"))
    await submit.click()
    await expect(page.get_by_role("alert")).to_contain_text("does not answer")
    await submit.click()
    await page.wait_for_url("**/console/jobs/*")
    assert len(set(keys)) == 1
    made = stack.get("/jobs?page_size=100")["jobs"]
    assert len([each for each in made if each["name"] == "made once"]) == 1
    stack.post(f"/jobs/{page.url.rpartition('/')[2]}/cancel", {})


@pytest.mark.slow
async def test_an_older_coordinator_is_shown_with_what_it_can(
    window: Window, stack: Stack, job: str
) -> None:
    page = window.page
    lacks = {"code": "NOT_IMPLEMENTED", "message": "The coordinator does not support this."}
    for path in (
        *(r"/events\?include", r"/jobs\?parent_job_id", "/jobs/[^/]+/log-marks"),
        *(r"/jobs/[^/]+/log-entries\?before", "/metrics-summary", r"/jobs\?validate_only"),
    ):
        await answer(page, path, lacks, status=501)
    await window.go("/jobs")
    await window.sign_in()
    await expect(page.get_by_text("Not live")).to_be_visible()
    row = row_of(page, job)
    await expect(row).to_contain_text("Training")
    # It is asked for again and again.
    before = await row.locator("progress").get_attribute("value")
    await expect(row.locator("progress")).not_to_have_attribute("value", before or "")
    await row.get_by_role("link", name="a test's").click()
    await expect(page.locator(".line .text").first).to_be_visible()
    await expect(page.get_by_role("heading", name="Checkpoints")).to_be_visible()
    await expect(page.get_by_role("heading", name="Retries")).to_have_count(0)
    assert await page.get_by_role("alert").count() == 0


async def test_times_are_told_by_the_gateways_clock(
    context: BrowserContext, stack: Stack, job: str
) -> None:
    window = await Window.opened(context, stack)
    # As a laptop whose clock is two hours behind has it.
    await window.page.add_init_script(
        "{ const real = Date.now; Date.now = () => real.call(Date) - 7200_000; }"
    )
    await signed_in(window, "/jobs")
    age = row_of(window.page, job).locator("time")
    await expect(age).to_have_text(re.compile(r"^\d+[sm] ago$"))


async def test_the_token_is_in_no_address_and_nothing_that_is_kept(
    window: Window, stack: Stack, job: str
) -> None:
    page, said = window.page, []
    page.on("request", lambda request: said.append(request.url))
    page.on("request", lambda request: said.append(request.headers.get("referer", "")))
    page.on("console", lambda message: said.append(message.text))
    await page.context.add_init_script(
        "{ const post = BroadcastChannel.prototype.postMessage; window.told = [];"
        " BroadcastChannel.prototype.postMessage = function (data) {"
        " window.told.push(this.name + JSON.stringify(data)); return post.call(this, data); }; }"
    )
    await window.go("/jobs")
    await page.get_by_label("Stay signed in").uncheck()
    await window.sign_in()
    await window.await_live()
    for link in ("New job", "Cluster", "Evaluations", "Jobs"):
        await page.get_by_role("link", name=link, exact=True).first.click()
    await row_of(page, job).get_by_role("link", name="a test's").click()
    await expect(page.locator(".line .text").first).to_be_visible()
    kept = await page.evaluate(
        "JSON.stringify([history.state, location.href, document.cookie, {...sessionStorage},"
        " {...localStorage}, window.name, window.told, document.documentElement.outerHTML])"
    )
    assert window.stack.key not in kept
    assert not [each for each in said if window.stack.key in each]


async def test_a_traceback_folds_to_its_last_line(window: Window, stack: Stack) -> None:
    failed = stack.submit(steps="many")
    stack.await_status(failed, "FAILED")
    await signed_in(window, f"/jobs/{failed}")
    page, lines = window.page, window.page.locator(".log-lines .line")
    await expect(page.get_by_role("button", name="fold", exact=True)).to_be_visible()
    before = await lines.count()
    await page.get_by_role("button", name="fold", exact=True).click()
    first = page.locator(".line", has_text="Traceback")
    await expect(first.locator("xpath=following-sibling::div[1]")).to_contain_text("ValueError")
    assert await lines.count() < before - 3
    await page.get_by_role("button", name="unfold").click()
    await expect(lines).to_have_count(before)


async def test_a_jobs_life_has_its_stops_and_its_retries(window: Window, stack: Stack) -> None:
    failed = stack.submit(steps="many")
    stack.await_status(failed, "FAILED")
    retry = stack.post(f"/jobs/{failed}/retry", {})["job_id"]
    paused = stack.submit(steps="100000", steps_per_second="20")
    for action, status in (("pause", "PAUSED"), ("resume", "TRAINING"), ("pause", "PAUSED")):
        stack.await_status(paused, "TRAINING" if action == "pause" else "PAUSED")
        stack.post(f"/jobs/{paused}/{action}", {})
        stack.await_status(paused, status)
    await signed_in(window, f"/jobs/{paused}")
    life = window.page.get_by_role("list", name="The job's life")
    await expect(life.get_by_role("listitem")).to_contain_text(
        ["created", "waited", "run 1:", "stopped for", "run 2:", "paused for"]
    )
    stack.post(f"/jobs/{paused}/cancel", {})
    await window.go(f"/jobs/{failed}")
    children = window.page.locator("#retries")
    await expect(children.locator(f'a[href$="{retry}"]')).to_be_visible()
    await window.go(f"/jobs/{retry}")
    await expect(window.page.get_by_role("link", name=failed).first).to_be_visible()


async def test_each_gpu_says_who_holds_it(window: Window, stack: Stack, stranger: str) -> None:
    holder = stack.submit(gpus=2, steps="100000", steps_per_second="1")
    stack.await_status(holder, "TRAINING")
    await signed_in(window, "/cluster")
    cells = window.page.locator(".gpus li")
    await expect(cells.locator(f'a[href$="{holder}"]')).to_have_count(2)
    other = await Window.opened(window.page.context, stack)
    await other.go("/cluster")
    await other.sign_in(stranger)
    await other.await_live()
    await expect(other.page.locator(".gpus li")).to_have_text(
        [re.compile("another tenant")] * 2 + [re.compile("free")]
    )
    assert await other.page.locator(f'a[href$="{holder}"]').count() == 0
    stack.post(f"/jobs/{holder}/cancel", {})


def evaluation(name: str, **scores: float) -> dict[str, Any]:
    return {
        **{"evaluation_id": name, "model_uri": name, "status": "COMPLETED", "job_id": ""},
        "results": [{"name": "b", "scores": scores}],
    }


async def test_evaluations_are_compared_with_the_direction_of_what_differs(
    window: Window, stack: Stack
) -> None:
    page = window.page
    one = evaluation("one", perplexity=8.0, accuracy=0.5, tokens=10)
    two = evaluation("two", perplexity=6.0, accuracy=0.25, tokens=20)
    jobs = [{"job_id": each["evaluation_id"]} for each in (one, two)]
    await answer(page, r"/evaluations\?", {"jobs": jobs, "total_count": 2})
    for each in (one, two):
        await answer(page, f"/evaluations/{each['evaluation_id']}", each)
    await signed_in(window, "/evaluations")
    for name in ("one", "two"):
        await page.get_by_role("checkbox", name=f"Compare {name}").check()
    rows = page.get_by_role("region", name="Comparison").get_by_role("row")
    await expect(rows).to_contain_text(
        [
            "Score",
            "\u22120.25 (\u221250.0 %) ▼ worse",
            "\u22122 (\u221225.0 %) ▲ better",
            "+10 (+100.0 %)",
        ]
    )
    assert "better" not in await rows.nth(3).inner_text()
    # The address has it, and a reload shows it again.
    await page.reload()
    await expect(rows).to_have_count(4)


@pytest.mark.parametrize("width", [390, pytest.param(720, marks=pytest.mark.slow)])
async def test_no_page_scrolls_sideways(
    context: BrowserContext, stack: Stack, job: str, width: int
) -> None:
    """At the width of a telephone, and at 200 % on one that is 1,440 wide."""
    window = await Window.opened(context, stack)
    await window.page.set_viewport_size({"width": width, "height": 450})
    await signed_in(window, "/jobs")
    too_wide = """document.documentElement.scrollWidth - innerWidth
        || [...document.querySelectorAll("main button, main .button")].filter((each) => {
            const inner = each.closest(".scrolls, .log-box") === null;
            return inner && each.getBoundingClientRect().right > innerWidth - 8;
        }).length"""
    for path in ("/jobs", f"/jobs/{job}", "/new", "/cluster", "/evaluations"):
        await window.go(path)
        await window.await_live()
        await (
            window.page.get_by_role("main").get_by_role("heading").first.wait_for(state="attached")
        )
        assert await window.page.evaluate(too_wide) == 0, path


async def test_an_open_job_has_one_stream_beside_that_of_all_tabs(
    context: BrowserContext, stack: Stack, job: str
) -> None:
    asked: list[str] = []
    for path in ("/jobs", f"/jobs/{job}", "/cluster"):
        window = await Window.opened(context, stack)
        window.page.on("request", lambda request: asked.append(request.url))
        await signed_in(window, path)
        if path.endswith(job):
            await expect(window.page.locator(".line .text").first).to_be_visible()
    streams = [url.partition("?")[2] for url in asked if "/events?" in url]
    assert sorted("job_id" in each for each in streams) == [False, True]
