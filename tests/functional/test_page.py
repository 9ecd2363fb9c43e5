"""The page of docs/streams.md, in a real browser, on an origin that is not the gateway's."""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.browser import PageServer
from tests.functional.stack import PATIENCE, PROJECT, Event, Stack, events

(SNIPPET,) = re.findall(
    r"^```js\n(.*?)^```$", (PROJECT / "docs" / "streams.md").read_text(), re.M | re.S
)
API = "https://gateway.example/v1/modules/scaimind"


@pytest.fixture(scope="module")
def pages() -> Iterator[PageServer]:
    with PageServer() as server:
        yield server


@pytest.fixture(scope="module")
def stack(pages: PageServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    data_dir = tmp_path_factory.mktemp("stack") / "var"
    with Stack(data_dir, SCAIMIND_CORS_ORIGINS=pages.origin) as running:
        yield running


def watching(stack: Stack, job_id: str, last_id: str = "") -> str:
    """The documented lines, and what a page does with them."""
    assert SNIPPET.count(API) == 1
    arguments = json.dumps({"job": job_id, "last": last_id, "key": stack.key})
    return f"""
        {SNIPPET.replace(API, f"{stack.url}/v1/modules/scaimind")}
        const given = {arguments}, token = async () => given.key, lines = [];
        const onLine = (entry) => {{
            if (lines.push(entry.message) === 1) report({{first: entry.message}});
        }};
        watchLogs(given.job, onLine, given.last).then(
            (status) => report({{status, lines}}),
            (error) => report({{error: error.message, final: error instanceof Final}}));
    """


def ended(stack: Stack) -> str:
    job_id = stack.submit(steps="20")
    assert stack.await_status(job_id, "COMPLETED", "FAILED")["status"] == "COMPLETED"
    return job_id


def the_log(stack: Stack, job_id: str) -> list[Event]:
    request = urllib.request.Request(
        f"{stack.url}/v1/modules/scaimind/jobs/{job_id}/logs?follow=false&tail=1000",
        headers={"Authorization": f"Bearer {stack.key}"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return events(answer.read().decode())


def test_a_log_is_followed_to_its_end(stack: Stack, pages: PageServer, tmp_path: Path) -> None:
    job_id = stack.submit(steps="400", log_interval="10")
    with pages.shown(watching(stack, job_id), tmp_path):
        assert "first" in pages.next_report()
        outcome = pages.next_report()
    assert outcome.get("status") == "COMPLETED", outcome
    stored = stack.log(job_id)
    # It began with the newest hundred that there were.
    assert outcome["lines"] == stored[-len(outcome["lines"]) :]
    assert outcome["lines"]


def test_a_page_that_has_all_of_an_ended_job_is_done(
    stack: Stack, pages: PageServer, tmp_path: Path
) -> None:
    job_id = ended(stack)
    last_id = the_log(stack, job_id)[-1].data["last_id"]
    with pages.shown(watching(stack, job_id, last_id), tmp_path):
        assert pages.next_report() == {"status": "COMPLETED", "lines": []}


def test_a_page_that_has_a_part_of_an_ended_job_gets_the_rest(
    stack: Stack, pages: PageServer, tmp_path: Path
) -> None:
    job_id = ended(stack)
    entries = [event for event in the_log(stack, job_id) if event.name == "log"]
    rest = [event.data["message"] for event in entries[-2:]]
    with pages.shown(watching(stack, job_id, entries[-3].id), tmp_path):
        assert pages.next_report() == {"first": rest[0]}
        assert pages.next_report() == {"status": "COMPLETED", "lines": rest}


def test_a_page_whose_origin_is_not_allowed_gives_up(stack: Stack, tmp_path: Path) -> None:
    job_id = ended(stack)
    with PageServer() as elsewhere, elsewhere.shown(watching(stack, job_id), tmp_path):
        outcome = elsewhere.next_report()
    assert outcome["final"] is True
    assert f"SCAIMIND_CORS_ORIGINS does not list {elsewhere.origin}" in outcome["error"]


def test_a_job_that_there_is_not_is_told(stack: Stack, pages: PageServer, tmp_path: Path) -> None:
    with pages.shown(watching(stack, "job-nowhere"), tmp_path):
        outcome = pages.next_report()
    assert outcome["final"] is True
    assert "job" in outcome["error"].lower()


def test_a_gateway_that_crashes_costs_a_page_nothing(
    stack: Stack, pages: PageServer, tmp_path: Path
) -> None:
    said = len(stack.lines)
    job_id = stack.submit(steps="1500", log_interval="10", steps_per_second="150")
    with pages.shown(watching(stack, job_id), tmp_path):
        assert "first" in pages.next_report()
        stack.child("app", "serve").kill()
        stack.await_line("The gateway exited by SIGKILL", after=said)
        outcome = pages.next_report()
    assert outcome.get("status") == "COMPLETED", outcome
    stored = stack.log(job_id)
    assert outcome["lines"] == stored[-len(outcome["lines"]) :]
