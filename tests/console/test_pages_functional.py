"""Every page, signing in and out, and what breaks while somebody looks."""

import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.async_api import BrowserContext, expect

from tests.console.browser import PATIENCE, Window, new_key, ran, row_of
from tests.console.test_types import HERE
from tests.functional.stack import PROJECT, Stack
from tests.npm import installed

expect.set_options(timeout=PATIENCE)

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGES = ("/jobs", "/new", "/cluster", "/evaluations")


@pytest.fixture(scope="module")
def job(stack: Stack) -> Iterator[str]:
    """A job that runs for as long as the tests of this module do."""
    job_id = stack.submit(steps="100000", steps_per_second="20")
    stack.await_status(job_id, "TRAINING")
    yield job_id
    # The jobs of the other modules need its place.
    stack.post(f"/jobs/{job_id}/cancel", {})


async def violations(window: Window, *rules: str) -> list[str]:
    """What axe-core finds by some rules, or all: the rule, and the first element that breaks it."""
    source = (installed(HERE) / "node_modules/axe-core/axe.min.js").read_text()
    # By the debugger: the page's own policy lets no such script in.
    await window.page.evaluate(source)
    wanted = {"runOnly": list(rules)} if rules else {}
    found = (await window.page.evaluate("(wanted) => axe.run(wanted)", wanted))["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found]


async def both(window: Window) -> tuple[list[str], list[str]]:
    """What axe-core finds in light, and of colours in dark."""
    await window.page.emulate_media(color_scheme="light")
    light = await violations(window)
    await window.page.emulate_media(color_scheme="dark")
    return light, await violations(window, "color-contrast")


async def signed_in(window: Window, path: str) -> None:
    await window.go(path)
    await window.sign_in()
    await window.await_live()


async def test_no_page_complains_and_axe_finds_nothing(window: Window, job: str) -> None:
    """In light and in dark."""
    page = window.page
    # What moves is caught half way, with half of its contrast.
    await page.emulate_media(reduced_motion="reduce")
    await window.go()
    await page.get_by_label("API key or token").wait_for()
    found = {"": await both(window)}
    await window.sign_in()
    await window.await_live()
    for path in (*PAGES, f"/jobs/{job}"):
        await window.go(path)
        await window.await_live()
        heading = page.get_by_role("main").get_by_role("heading").first
        await heading.wait_for(state="attached")
        found[path] = await both(window)
    assert found == {path: ([], []) for path in found}


async def test_a_wrong_token_is_refused_where_it_was_given(window: Window) -> None:
    await window.go()
    await window.sign_in("sgk_" + "x" * 43)
    await expect(window.page.get_by_role("alert")).to_contain_text("not valid")
    await window.sign_in()
    await window.await_live()


async def test_a_job_changes_before_ones_eyes(window: Window, stack: Stack, job: str) -> None:
    await signed_in(window, "/jobs")
    row = row_of(window.page, job)
    await expect(row).to_contain_text("Training")
    before = await row.locator("progress").get_attribute("value")
    await expect(row.locator("progress")).not_to_have_attribute("value", before or "")
    await row.get_by_role("button", name="Pause").click()
    await expect(row).to_contain_text("Paused")
    await row.get_by_role("button", name="Resume").click()
    await expect(row).to_contain_text("Training")


async def test_rows_far_down_say_their_gpus_once_they_are_in_sight(
    window: Window, stack: Stack
) -> None:
    holder = stack.submit(gpus=3, steps="100000", steps_per_second="1")
    waiting = [stack.submit(gpus=2, name="far down", steps="1") for _ in range(60)]
    try:
        await signed_in(window, "/jobs?q=far+down")
        newest, oldest = row_of(window.page, waiting[-1]), row_of(window.page, waiting[0])
        await expect(newest.get_by_role("cell").nth(5)).to_have_text("2")
        await expect(oldest).to_have_count(0)
        await window.page.evaluate("scrollTo(0, document.scrollingElement.scrollHeight)")
        await expect(oldest.get_by_role("cell").nth(5)).to_have_text("2")
    finally:
        # The rows of the other tests' jobs are to be in sight.
        for each in waiting:
            stack.post(f"/jobs/{each}/cancel", {})
            stack.delete(f"/jobs/{each}")
        # Last: none of the others has begun.
        stack.post(f"/jobs/{holder}/cancel", {})


async def test_cancelling_asks_first(window: Window, stack: Stack) -> None:
    doomed = stack.submit(steps="100000", steps_per_second="20")
    await signed_in(window, "/jobs")
    row = row_of(window.page, doomed)
    await row.get_by_role("button", name="Cancel").click()
    question = window.page.get_by_role("dialog")
    await expect(question).to_contain_text("Cancel a test's?")
    await question.get_by_role("button", name="Keep as it is").click()
    assert stack.get(f"/jobs/{doomed}")["status"] != "CANCELLED"
    await row.get_by_role("button", name="Cancel").click()
    await question.get_by_role("button", name="Cancel the job").click()
    await expect(row).to_contain_text("Cancelled")
    await row.get_by_role("button", name="Delete").click()
    await question.get_by_role("button", name="Delete the job").click()
    await expect(row).to_have_count(0)


async def test_a_reload_in_mid_stream_and_a_gateway_that_is_killed(
    window: Window, stack: Stack, job: str
) -> None:
    await signed_in(window, f"/jobs/{job}")
    await window.page.reload()
    await window.await_live()
    os.kill(stack.child("serve").pid, signal.SIGKILL)
    await expect(window.page.get_by_text("Offline since")).to_be_visible()
    # What was on the screen stays.
    await expect(window.page.get_by_role("heading", name="a test's")).to_be_visible()
    await window.await_live()


def status_of(stack: Stack, token: str) -> int:
    """What a request with the token is answered with."""
    request = urllib.request.Request(
        f"{stack.url}/v1/modules/scaimind/jobs", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE / 1000) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


async def test_a_session_by_the_command_ends_with_a_sign_out_in_another_tab(
    context: BrowserContext, stack: Stack
) -> None:
    command = [sys.executable, "-m", "scaimind", "console", "--print"]
    settings = {
        "SCAIMIND_URL": stack.url,
        "SCAIMIND_API_KEY": stack.key,
        "PYTHONPATH": str(PROJECT / "clients/python"),
    }
    printed = ran(command, stack, **settings)
    one = await Window.opened(context, stack)
    await one.page.goto(printed.strip())
    await one.await_live()
    assert "code" not in one.page.url
    token = await one.page.evaluate("sessionStorage.getItem('scaimind-token')")
    assert token.startswith("sgc_")
    # The code is used up.
    two = await Window.opened(context, stack)
    await two.page.goto(printed.strip())
    await expect(two.page.get_by_role("alert")).to_contain_text("code is not valid")
    await two.sign_in(token)
    await two.await_live()
    async with two.page.expect_response("**/console-sessions/current") as ended:
        await two.page.get_by_role("button", name="Sign out").click()
    assert (await ended.value).status == 200
    for each in (one, two):
        await each.page.get_by_label("API key or token").wait_for()
        assert await each.page.evaluate("sessionStorage.length") == 0
        assert each.complaints == []
    assert status_of(stack, token) == 401


async def test_a_link_signs_nobody_in_unasked(
    window: Window, stack: Stack, stranger: str, job: str
) -> None:
    command = [sys.executable, "-m", "scaimind", "console", "--print"]
    settings = {
        "SCAIMIND_URL": stack.url,
        "SCAIMIND_API_KEY": stranger,
        "PYTHONPATH": str(PROJECT / "clients/python"),
    }
    await signed_in(window, "/jobs")
    row = window.page.locator(f'a[href$="{job}"]')
    await expect(row).to_be_visible()
    code = ran(command, stack, **settings).strip().partition("#")[2]
    await window.go(f"/jobs#{code}")
    await window.page.reload()
    question = window.page.get_by_role("dialog")
    await expect(question).to_contain_text("signed in already")
    await question.get_by_role("button", name="Keep as it is").click()
    await expect(row).to_be_visible()


async def test_a_revoked_token_is_asked_for_in_place(
    window: Window, stack: Stack, job: str
) -> None:
    key_id, key = new_key(stack, "--tenant", "local", "--user", "ann", "--preset", "engineer")
    await window.go(f"/jobs/{job}")
    await window.sign_in(key)
    await window.await_live()
    field = window.page.get_by_label("Search the whole log")
    await field.fill("half written")
    ran([sys.executable, "-m", "app", "keys", "revoke", key_id], stack)
    await expect(window.page.get_by_text("Your session has ended")).to_be_visible()
    await expect(window.page.get_by_role("heading", name="a test's")).to_be_visible()
    await window.sign_in()
    await window.await_live()
    await expect(field).to_have_value("half written")


async def test_tabs_of_two_tenants_see_nothing_of_each_other(
    context: BrowserContext, stack: Stack, stranger: str, job: str
) -> None:
    ours, theirs = await Window.opened(context, stack), await Window.opened(context, stack)
    await ours.go("/jobs")
    await ours.sign_in()
    await ours.await_live()
    await theirs.go("/jobs")
    await theirs.sign_in(stranger)
    await theirs.await_live()
    await expect(ours.page.locator(f'a[href$="{job}"]')).to_be_visible()
    await expect(theirs.page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    # Another job of ours reaches our tab, and theirs goes on without it.
    more = stack.submit(steps="1")
    await expect(ours.page.locator(f'a[href$="{more}"]')).to_be_visible()
    assert await theirs.page.locator("[data-row]").count() == 0
    # Signing out there ends nothing here.
    await theirs.page.get_by_role("button", name="Sign out").click()
    await theirs.page.get_by_label("API key or token").wait_for()
    assert await ours.page.get_by_text("Live", exact=True).is_visible()
    assert ours.complaints == theirs.complaints == []


async def test_tabs_with_one_token_share_one_stream(context: BrowserContext, stack: Stack) -> None:
    windows = [await Window.opened(context, stack) for _ in range(3)]
    asked: list[str] = []
    for window in windows:
        window.page.on("request", lambda request: asked.append(request.url))
        await window.go("/jobs")
        await window.sign_in()
        await window.await_live()
    assert len([url for url in asked if "/events?" in url]) == 1
    new = stack.submit(steps="1")
    for window in windows:
        await expect(window.page.locator(f'a[href$="{new}"]')).to_be_visible()
    # The one that reads it goes: another one goes on.
    await windows[0].page.close()
    newer = stack.submit(steps="1")
    for window in windows[1:]:
        await expect(window.page.locator(f'a[href$="{newer}"]')).to_be_visible()
    assert len([url for url in asked if "/events?" in url]) == 2


async def test_a_job_is_made_in_the_form_and_in_the_yaml(window: Window, stack: Stack) -> None:
    await signed_in(window, "/new")
    page = window.page
    yaml = page.get_by_label("YAML")
    body = {
        "name": "from the console",
        "training_config": {
            "training_type": "CONTINUED_PRETRAIN",
            "base_model": {"model_id": "none"},
            "framework": {"type": "CUSTOM", "custom_script_path": "scaidrive://local/train.py"},
            "hyperparameters": {"steps": "1"},
        },
        "data_config": {"sources": [{"path": "scaidrive://local/corpus.jsonl"}]},
        "resource_config": {"gpu_count": 0},
    }
    await yaml.fill(json.dumps(body))
    name = page.get_by_label("name *", exact=True).first
    await expect(name).to_have_value("from the console")
    await name.fill("")
    await expect(yaml).not_to_have_value(json.dumps(body))
    await page.get_by_role("button", name="Submit").click()
    await expect(page.get_by_role("alert").first).to_contain_text("Missing data")
    await name.fill("by hand")
    await page.get_by_role("button", name="Submit").click()
    await page.wait_for_url("**/console/jobs/*")
    await expect(page.get_by_role("heading", name="by hand")).to_be_visible()
