"""Both clients, over transports that answer from a script."""

import asyncio
import importlib
import inspect
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

import scaimind
from scaimind import AsyncClient, Client, WaitTimeout
from scaimind.errors import (
    ApiError,
    AuthenticationFailed,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    ScaiMindError,
)

URL = "https://gateway.example"
Answer = Callable[[httpx2.Request], httpx2.Response]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    paused: list[float] = []

    async def pause(seconds: float) -> None:
        paused.append(seconds)

    monkeypatch.setattr("scaimind.blocking.driver.pause", paused.append)
    monkeypatch.setattr("scaimind.asynchronous.driver.pause", pause)
    return paused


def client(*answers: Answer | httpx2.Response, **more: Any) -> tuple[Client, list[httpx2.Request]]:
    """A client whose requests are answered one after the other; and the requests."""
    left, asked = list(answers), []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        each = left.pop(0)
        return each(request) if callable(each) else each

    given = {"key": "sgk_x"} | more
    return Client(URL, transport=httpx2.MockTransport(answer), **given), asked


def data(value: Any, status: int = 200) -> httpx2.Response:
    return httpx2.Response(status, json={"data": value})


def refused(status: int, code: str, **headers: str) -> httpx2.Response:
    body = {
        "error": {"code": code, "message": "no", "details": [{"field": "a.b", "message": "bad"}]},
        "meta": {"request_id": "r-1"},
    }
    return httpx2.Response(status, json=body, headers=headers)


def no_answer(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("refused", request=request)


def test_a_submission_is_repeated_under_one_key() -> None:
    made, asked = client(no_answer, refused(503, "X"), data({"job_id": "j"}, 201))
    assert made.jobs.submit({"name": "a"}).job_id == "j"
    keys = {each.headers["idempotency-key"] for each in asked}
    assert len(asked) == 3
    assert len(keys) == 1


def test_other_posts_are_not_repeated() -> None:
    made, asked = client(no_answer)
    with pytest.raises(ConnectionFailed):
        made.jobs.cancel("j")
    assert len(asked) == 1
    made, asked = client(refused(503, "COORDINATOR_UNAVAILABLE"))
    with pytest.raises(ApiError):
        made.jobs.cancel("j")
    assert len(asked) == 1


def test_who_is_in_a_hurry_tries_once_until_there_was_an_answer() -> None:
    made, asked = client(no_answer, fail_fast=True)
    with pytest.raises(ConnectionFailed):
        made.jobs.get("j")
    assert len(asked) == 1
    made, _ = client(data({}), no_answer, data({"job_id": "j"}), fail_fast=True)
    made.jobs.get("i")
    assert made.jobs.get("j").job_id == "j"


def test_a_refusal_for_too_many_requests_is_waited_out(no_pauses: list[float]) -> None:
    made, _ = client(refused(429, "RATE_LIMITED", **{"retry-after": "9"}), data({"job_id": "j"}))
    made.jobs.cancel("j")
    assert no_pauses[0] >= 9


def test_a_refusal_has_all_that_the_gateway_said() -> None:
    made, _ = client(refused(422, "VALIDATION_ERROR"))
    with pytest.raises(InvalidRequest) as caught:
        made.jobs.submit({})
    error = caught.value
    assert (error.code, error.status, error.request_id) == ("VALIDATION_ERROR", 422, "r-1")
    assert error.details[0].field == "a.b"


def test_a_token_is_renewed_once() -> None:
    tokens = iter(["first", "second", "third"])
    made, asked = client(
        refused(401, "AUTH_TOKEN_INVALID"), data({}), key="", token=lambda: next(tokens)
    )
    made.jobs.get("j")
    sent = [each.headers["authorization"] for each in asked]
    assert sent == ["Bearer first", "Bearer second"]
    made, _ = client(refused(401, "AUTH_TOKEN_INVALID"))
    with pytest.raises(AuthenticationFailed):
        made.jobs.get("j")


def test_pages_are_one_iterator() -> None:
    made, asked = client(
        data({"jobs": [{"job_id": "1"}, {"job_id": "2"}], "next_page_token": "t"}),
        data({"jobs": [{"job_id": "3"}], "next_page_token": ""}),
    )
    assert [job.job_id for job in made.jobs.list(status=["QUEUED", "FAILED"])] == ["1", "2", "3"]
    assert asked[0].url.params.get_list("status") == ["QUEUED", "FAILED"]
    assert asked[1].url.params["page_token"] == "t"


def test_pages_that_do_not_end_do_not_spin() -> None:
    page = {"jobs": [], "next_page_token": "t"}
    made, _ = client(data(page), data(page))
    with pytest.raises(ScaiMindError):
        list(made.jobs.list())


def test_ids_are_one_segment_of_the_path() -> None:
    made, asked = client(data({}))
    made.jobs.get("../a b/é?x=1#")
    assert asked[0].url.raw_path == b"/v1/modules/scaimind/jobs/..%2Fa%20b%2F%C3%A9%3Fx%3D1%23"


def test_no_secret_is_in_an_error() -> None:
    made, _ = client(no_answer, no_answer, no_answer, no_answer, no_answer)
    with pytest.raises(ConnectionFailed) as caught:
        made.jobs.get("j")
    assert "sgk_x" not in f"{caught.value!r}{caught.value.__cause__!r}"


@pytest.mark.parametrize("url", ["", "gateway.example", "ftp://x", "https://u:p@x", "https://x?y"])
def test_a_wrong_url_is_said_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCAIMIND_URL", raising=False)
    with pytest.raises(ScaiMindError):
        Client(url, "k")


def stream(*events: str) -> httpx2.Response:
    return httpx2.Response(
        200, headers={"content-type": "text/event-stream"}, content="".join(events).encode()
    )


def log(offset: int) -> str:
    entry = {"offset": offset, "level": "INFO", "message": f"line {offset}"}
    return f"id: e:{offset}\nevent: log\ndata: {json.dumps(entry)}\n\n"


END = 'id: e:2\nevent: end\ndata: {"status": "FAILED", "last_id": "e:2"}\n\n'


def test_a_log_is_followed_over_connections() -> None:
    made, asked = client(stream(log(1)), stream(log(2), END))
    lines = made.jobs.logs("j", tail=5)
    assert [line.message for line in lines if isinstance(line, scaimind.LogLine)] == [
        "line 1",
        "line 2",
    ]
    assert lines.status == "FAILED"
    assert str(lines.cursor) == "e:2"
    assert asked[1].headers["last-event-id"] == "e:1"
    made, asked = client(stream(END))
    list(made.jobs.logs("j", after="e:7"))
    assert asked[0].headers["last-event-id"] == "e:7"


def state(job_id: str, status: str, revision: int = 1) -> str:
    record = {"job_id": job_id, "status": status, "revision": revision}
    return f"event: job\ndata: {json.dumps(record)}\n\n"


def gone(job_id: str, reason: str) -> str:
    return f"event: job_gone\ndata: {json.dumps({'job_id': job_id, 'reason': reason})}\n\n"


def test_waiting_is_one_stream_over_all_jobs() -> None:
    begins = state("a", "TRAINING") + state("b", "FAILED") + "id: x\nevent: bookmark\ndata: {}\n\n"
    made, asked = client(
        stream(begins), stream(state("a", "PAUSED", 2), state("a", "COMPLETED", 3))
    )
    seen: list[str] = []
    found = made.jobs.wait("a", "b", "a", progress=lambda job: seen.append(job.status))
    assert found == {"a": "COMPLETED", "b": "FAILED"}
    assert seen == ["TRAINING", "PAUSED"]
    assert asked[0].url.params.get_list("job_id") == ["a", "b"]


@pytest.mark.parametrize("reason", ["unknown", "deleted"])
def test_waiting_for_a_job_that_is_not_there_is_refused(reason: str) -> None:
    made, _ = client(stream(state("a", "TRAINING"), gone("a", reason)))
    with pytest.raises(NotFound, match=r"^a: "):
        made.jobs.wait("a")


def test_an_older_gateway_is_waited_for_by_its_logs() -> None:
    made, _ = client(refused(404, "NOT_FOUND"), stream(END), stream(log(1)), stream(END))
    assert made.jobs.wait("a", "b") == {"a": "FAILED", "b": "FAILED"}
    made, _ = client(refused(501, "NOT_IMPLEMENTED"), stream(END))
    assert made.jobs.wait("a") == {"a": "FAILED"}


@pytest.mark.parametrize("timeout", [2.0, 20.0, 50.0, 200.0])
def test_waiting_has_a_limit(timeout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    class Quiet(httpx2.SyncByteStream):
        """A stream that is sent a keepalive every 15 s, and breaks when it waits for too long."""

        def __init__(self, limit: float) -> None:
            self._limit = limit

        def __iter__(self) -> Iterator[bytes]:
            nonlocal now
            while True:
                now += min(self._limit, 15.0)
                if self._limit < 15.0:
                    raise httpx2.ReadTimeout("nothing came")
                yield b": keepalive\n"

    def answer(request: httpx2.Request) -> httpx2.Response:
        limit = request.extensions["timeout"]["read"]
        head = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=head, stream=Quiet(limit))

    made = Client(URL, "k", transport=httpx2.MockTransport(answer))
    with pytest.raises(WaitTimeout):
        made.jobs.wait("a", timeout=timeout)
    assert timeout <= now <= timeout + 2


def public(kind: type) -> dict[str, str]:
    """The methods of a class and how they are called."""
    return {
        name: str(inspect.signature(member)).partition(" ->")[0]
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("client", "Client"),
        ("jobs", "Jobs"),
        ("jobs", "Logs"),
        ("files", "Files"),
        ("events", "Events"),
        ("resources", "Evaluations"),
        ("resources", "Data"),
        ("resources", "Nodes"),
    ],
)
def test_both_clients_have_the_same_methods(module: str, name: str) -> None:
    ours, theirs = f"scaimind.blocking.{module}", f"scaimind.asynchronous.{module}"
    if module == "client":
        ours, theirs = "scaimind.client", "scaimind.async_client"
    blocking = getattr(importlib.import_module(ours), name)
    asynchronous = getattr(importlib.import_module(theirs), f"Async{name}")
    assert public(asynchronous) == public(blocking)


def test_the_asynchronous_client_does_the_same() -> None:
    answers = [data({"job_id": "j", "status": "QUEUED"}), stream(log(1)), stream(log(2), END)]

    async def use() -> None:
        transport = httpx2.MockTransport(lambda _: answers.pop(0))
        async with AsyncClient(URL, "k", transport=transport) as made:
            assert (await made.jobs.get("j")).status == "QUEUED"
            lines = made.jobs.logs("j")
            assert [line.offset async for line in lines if isinstance(line, scaimind.LogLine)] == [
                1,
                2,
            ]
            assert lines.status == "FAILED"

    asyncio.run(use())
