"""What a job writes never runs in the gateway's origin, in a real Chromium."""

import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Error, Page

from tests.console.browser import chromium
from tests.functional.stack import PATIENCE, Stack

pytestmark = pytest.mark.slow

#: What every file does as soon as it is run.
_RAN = "localStorage.setItem('ran', document.URL)"
_SCRIPT = f'''
import os
folder = os.environ["SCAIMIND_OUTPUT_DIR"] + "/"
files = {{
    "page.html": "<!doctype html><title>ran</title><script>{_RAN}</script>",
    "page.xhtml": "<html xmlns='http://www.w3.org/1999/xhtml'><script>{_RAN}</script></html>",
    "drawing.svg": "<svg xmlns='http://www.w3.org/2000/svg'><script>{_RAN}</script></svg>",
    "worker.js": "{_RAN}; self.addEventListener('fetch', () => 0)",
    "shown.json": "[1]",
}}
for name, content in files.items():
    open(folder + name, "w").write(content)
'''
_FILES = ("page.html", "page.xhtml", "drawing.svg", "worker.js")
#: Includes a script in a page; whether it was loaded.
_INCLUDE = """
([src, type]) => new Promise((done) => {
  const script = Object.assign(document.createElement("script"), {src, type});
  script.onload = () => done("load");
  script.onerror = () => done("error");
  document.head.append(script);
})
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack") / "var") as running:
        yield running


@pytest.fixture
async def context() -> AsyncIterator[BrowserContext]:
    async with chromium() as browser:
        # Without the policies of pages: what is left is what the files' own headers forbid.
        made = await browser.new_context(bypass_csp=True)
        made.set_default_timeout(PATIENCE * 1000)
        yield made


def written_by_a_job(stack: Stack) -> str:
    """Have a job write the files; the folder that they are in."""
    request = urllib.request.Request(
        f"{stack.url}/v1/drive/evil.py",
        method="PUT",
        data=_SCRIPT.encode(),
        headers={"Authorization": f"Bearer {stack.key}"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert answer.status == 201
    # The very folder that the coordinator's URLs mean.
    assert (stack.data_dir / "drive" / "local" / "evil.py").read_text() == _SCRIPT
    body = {
        "name": "evil",
        "training_config": {
            "training_type": "CONTINUED_PRETRAIN",
            "base_model": {"model_id": "none"},
            "framework": {"type": "CUSTOM", "custom_script_path": "scaidrive://local/evil.py"},
        },
        "data_config": {"sources": [{"path": "scaidrive://local/corpus.jsonl"}]},
        "resource_config": {},
    }
    request = urllib.request.Request(
        f"{stack.url}/v1/modules/scaimind/jobs",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {stack.key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        job_id = json.load(answer)["data"]["job_id"]
    assert stack.await_status(job_id, "COMPLETED", "FAILED")["status"] == "COMPLETED"
    return f"jobs/{job_id}/output"


def ticket(stack: Stack, path: str) -> str:
    """A ticket for one path of the drive."""
    request = urllib.request.Request(
        f"{stack.url}/v1/modules/scaimind/stream-tickets",
        data=json.dumps({"kind": "drive", "path": path}).encode(),
        headers={"Authorization": f"Bearer {stack.key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return str(json.load(answer)["data"]["ticket"])


def address(stack: Stack, path: str, query: str = "") -> str:
    return f"{stack.url}/v1/drive/{path}?ticket={ticket(stack, path)}{query}"


async def ran(page: Page, stack: Stack) -> object:
    """What the gateway's origin remembers of a script that ran in it."""
    await page.goto(f"{stack.url}/version")
    return await page.evaluate("localStorage.getItem('ran')")


async def test_nothing_that_a_job_wrote_runs_in_the_gateway_s_origin(
    stack: Stack, context: BrowserContext, tmp_path: Path
) -> None:
    folder = written_by_a_job(stack)
    page = await context.new_page()
    for name in _FILES:
        for query in ("", "&inline=1"):
            await page.goto(f"{stack.url}/version")
            # It is saved, and not shown.
            async with page.expect_download() as download:
                with pytest.raises(Error):
                    await page.goto(address(stack, f"{folder}/{name}", query))
            saved = tmp_path / name
            await (await download.value).save_as(saved)
            assert "localStorage" in saved.read_text()
            assert await ran(page, stack) is None

    # As a part of a page of the same origin, too.
    await page.goto(f"{stack.url}/version")
    for name in _FILES:
        url = address(stack, f"{folder}/{name}", "&inline=1")
        async with page.expect_download():
            await page.evaluate(
                "url => document.body.append(Object.assign(document.createElement('iframe'),"
                " {src: url}))",
                url,
            )
        for kind in ("text/javascript", "module"):
            url = address(stack, f"{folder}/{name}", "&inline=1")
            outcome = await page.evaluate(_INCLUDE, [url, kind])
            assert outcome == "error", (name, kind)
    assert await page.evaluate("localStorage.getItem('ran')") is None
    url = address(stack, f"{folder}/worker.js", "&inline=1")
    refused = await page.evaluate(
        "url => navigator.serviceWorker.register(url).then(() => '', error => error.message)", url
    )
    assert "MIME type ('application/octet-stream')" in refused
    assert await ran(page, stack) is None

    # What may be shown is shown, in an origin of its own.
    await page.goto(address(stack, f"{folder}/shown.json", "&inline=1"))
    assert await page.evaluate("document.contentType") == "application/json"
    assert await page.evaluate("origin") == stack.url


async def test_what_is_tried_would_run_elsewhere(
    stack: Stack, context: BrowserContext, tmp_path: Path
) -> None:
    page = await context.new_page()
    await page.route(
        f"{stack.url}/elsewhere",
        lambda route: route.fulfill(
            content_type="text/html", body=f"<!doctype html><script>{_RAN}</script>"
        ),
    )
    await page.goto(f"{stack.url}/elsewhere")
    assert await ran(page, stack) == f"{stack.url}/elsewhere"
