"""Requests that come again: each situation ends the same whether they are read or known.

Whoever adds a middleware, a header or a field of the log line has to add it to
`app.api.reads.repeated` as well: these tests compare both ways.
"""

import asyncio
import re
from dataclasses import replace
from typing import Any

import pytest

from app.api import audit, delivery, middlewares, tracing
from app.api.app_keys import METRICS
from app.api.settings import LimitsSettings
from app.gateway.application import create_app
from app.gateway.repeats import Repeats
from app.gateway.settings import Settings
from app.scaikey.api_keys import create_key
from generated.mindcoordinator.v1.jobs_pb2 import GetJobRequest, Job
from tests.api.conftest import Keys
from tests.api.endpoints import PREFIX
from tests.api.raw_server import SAFETY_NET, Answer
from tests.api.raw_server import request as written
from tests.api.scenes import (
    JOB,
    Scene,
    Situation,
    closing,
    drain,
    expire,
    fail,
    hang,
    leave,
    lose_permissions,
    lose_permissions_and_notice,
    one_behind_another,
    read_again,
    revoke,
    scene_of,
    then,
    thrice,
    twice,
    two_at_once,
    with_an_origin,
    with_ids,
    write,
)
from tests.scripted_coordinator import Context, ScriptedCoordinator

SITUATIONS = {
    "plain": Situation(twice(), [200, 200], 1),
    "three times, read anew": Situation(then(read_again), [200, 200], 1),
    "a page": Situation(twice(path=f"{PREFIX}/jobs?page_size=2"), [200, 200], 1),
    "the queue": Situation(twice(path=f"{PREFIX}/queue"), [200, 200], 1),
    "the cluster": Situation(twice(path=f"{PREFIX}/cluster"), [200, 200], 1),
    "not shared": Situation(twice(path=f"{PREFIX}/data/cache"), [200, 200], 0),
    "unknown job": Situation(twice(path=f"{PREFIX}/jobs/other"), [404, 404], 0),
    "no such query": Situation(twice(path=f"{JOB}?ticket=x"), [422, 422], 0),
    "HEAD": Situation(twice(method="HEAD"), [200, 200], 0),
    "closing": Situation(closing, [200], 0),
    "an id given": Situation(twice("X-Request-ID: mine"), [200, 200], 1),
    "an id that is none": Situation(twice("X-Request-ID: ?"), [200, 200], 1),
    "another id each time": Situation(with_ids("one", "2.b"), [200, 200], 1),
    "no id in place of one": Situation(with_ids("one", ""), [200, 200], 0),
    "an id behind one that is none": Situation(with_ids("?", "one"), [200, 200], 0),
    "two ids": Situation(twice("X-Request-ID: a", "x-request-id: b"), [200, 200], 0),
    "a trace": Situation(
        twice("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        [200, 200],
        1,
    ),
    "a current version": Situation(twice('If-None-Match: "7"'), [304, 304], 1),
    "an old version": Situation(twice('If-None-Match: "6"'), [200, 200], 1),
    "an origin": Situation(twice("Origin: https://a.example"), [200, 200], 1, with_an_origin),
    "another origin": Situation(twice("Origin: https://b.example"), [200, 200], 1, with_an_origin),
    "no origin": Situation(twice(), [200, 200], 1, with_an_origin),
    "Expect": Situation(twice("Expect: 100-continue"), [200, 200], 0),
    "stale-if-error": Situation(twice("Cache-Control: stale-if-error=9"), [200, 200], 1),
    "revoked": Situation(then(revoke), [200, 401], 0),
    "expired": Situation(then(expire), [200, 401], 0),
    "permission lost": Situation(then(lose_permissions), [200, 403], 0),
    "permission lost, which is known": Situation(
        then(lose_permissions_and_notice), [200, 403, 403], 0
    ),
    "limited": Situation(
        thrice,
        [200, 200, 429],
        1,
        lambda settings: replace(settings, limits=LimitsSettings(rate=0.0001, burst=2)),
    ),
    "a write between": Situation(then(write), [200, 200], 1),
    "the coordinator away": Situation(then(fail), [200, 503], 0),
    "the coordinator late": Situation(
        then(hang),
        [200, 504],
        0,
        lambda settings: replace(settings, upstream=replace(settings.upstream, unary_timeout=0.5)),
        waits=0.01,
    ),
    "client gone": Situation(leave, [200], 1),
    "draining": Situation(drain, [200, 200], 0),
    "two at once": Situation(two_at_once, [200, 200, 200], 0),
    "one behind another": Situation(one_behind_another, [200, 200, 200], 0),
}


def outcome(scene: Scene) -> dict[str, Any]:
    """All that can be seen of what has happened, but for what differs each time."""
    ids = {answer.headers.get("x-request-id") for answer in scene.answers}

    def settled(value: Any) -> Any:
        text = str(value)
        if text in ids and text != "mine":
            return "an id"
        for each in ids:
            text = text.replace(str(each), "an id")
        text = text.replace(scene.key.key.key_id, "a key")
        # Of a limit; seconds pass.
        return re.sub(r"\b(?:9|10)\d{3}\b", "some", text)

    answers = [
        (
            answer.status,
            {
                name: settled(value)
                for name, value in answer.headers.items()
                if name not in ("date", "retry-after") or answer.status not in (200, 304)
            }
            | {"date": "x"},
            settled(answer.body),
        )
        for answer in scene.answers
    ]
    events = [
        {
            name: settled(value)
            if name not in ("seconds", "trace_id", "request_id") or value in ("mine", TRACE)
            else "there"
            for name, value in event.items()
        }
        for event in scene.events
        if event["event"] in ("request", "audit", "token_refused") or "failed" in event["event"]
    ]
    counted = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in scene.server.app[METRICS].registry.collect()
        for sample in family.samples
        if sample.name
        in (
            "scaimind_requests_total",
            "scaimind_request_errors_total",
            "scaimind_request_seconds_count",
            "scaimind_rate_limited_total",
            "scaimind_coordinator_calls_total",
        )
    }
    calls = [
        (name, call.metadata.get("x-request-id") in {e.get("request_id") for e in scene.events})
        for name in ("GetJob", "ListJobs", "GetQueueStatus")
        for call in scene.coordinator.requests(name)
    ]
    return {"answers": answers, "events": events, "counted": counted, "calls": calls}


TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("name", SITUATIONS)
async def test_a_request_ends_the_same_whether_it_is_read_or_known(
    name: str, settings: Settings, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    situation = SITUATIONS[name]
    outcomes = []
    for is_known in (False, True):
        async with ScriptedCoordinator() as coordinator:
            if not is_known:
                monkeypatch.setattr(Repeats, "find", lambda *_: None)
            own = replace(
                settings, upstream=replace(settings.upstream, address=coordinator.address)
            )
            async with scene_of(situation, own, coordinator, keys, monkeypatch) as scene:
                await situation.act(scene)
                assert [answer.status for answer in scene.answers] == situation.statuses
                outcomes.append(outcome(scene))
                reads = len(scene.reads)
                if not is_known:
                    expected = reads - situation.known
    assert outcomes[1] == outcomes[0]
    # Else both would have gone the same way.
    assert reads == expected


async def test_the_middlewares_are_those_whose_work_is_done_for_known_requests_too(
    settings: Settings,
) -> None:
    """One that is added has to do its work in `app.api.reads.repeated` as well, by a function
    that both share (`app.api.every_request`), or is of no matter there: then add it here."""
    assert tuple(create_app(settings).middlewares) == (
        delivery.deliver,
        middlewares.trace,
        tracing.continue_trace,
        audit.audit,
        middlewares.answer_errors,
        middlewares.admit,
    )


PLAIN = Situation(twice(), [], 0)


async def test_whose_requests_come_in_turn_by_one_connection_get_their_own(
    settings: Settings,
    coordinator: ScriptedCoordinator,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with scene_of(PLAIN, settings, coordinator, keys, monkeypatch) as scene:

        async def own(request: GetJobRequest, context: Context) -> Job:
            metadata = dict(context.invocation_metadata())
            return Job(job_id="j", tenant_id=metadata["x-tenant-id"], user_id=metadata["x-user-id"])

        coordinator.answer("GetJob", own)
        users = {}
        for tenant, user in (("acme", "bob"), ("rival", "ann"), ("rival", "bob")):
            made = await asyncio.to_thread(
                create_key, keys.dsn, tenant_id=tenant, user_id=user, roles=["tenant_viewer"]
            )
            users[tenant, user] = written(
                f"GET {JOB} HTTP/1.1", f"Authorization: Bearer {made.secret}"
            )
        for _ in range(3):
            for who, data in users.items():
                told = (await scene.ask(data)).body
                assert f'"tenant_id":"{who[0]}","user_id":"{who[1]}"'.encode() in told
        assert len(scene.reads) == len(users)


async def test_what_is_known_is_not_seen_in_a_body_nor_in_a_part_of_a_request(
    settings: Settings,
    coordinator: ScriptedCoordinator,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with scene_of(PLAIN, settings, coordinator, keys, monkeypatch) as scene:
        known = scene.get()
        await scene.ask(known)
        await scene.ask(known)
        assert len(scene.reads) == 1
        head = scene.get(
            f"Content-Length: {len(known)}",
            "Content-Type: application/json",
            path=f"{PREFIX}/jobs",
            method="POST",
        )

        async def until_read(count: int) -> None:
            async with asyncio.timeout(SAFETY_NET):
                while len(scene.reads) < count:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0.01)

        # The whole of it is the body of another request, and not JSON.
        await scene.client.send(head)
        await until_read(2)
        assert (await scene.ask(known)).status == 400
        # The value of a header.
        await scene.client.send(known[:-2] + b"X: ")
        await until_read(4)
        # With another `Host` behind it.
        assert (await scene.ask(known)).status == 400
        assert await scene.client.rest() == b""


async def test_the_end_of_a_request_is_not_taken_for_one_that_is_its_own(
    settings: Settings,
    coordinator: ScriptedCoordinator,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else who may read the job could have others read it who send no token."""
    async with scene_of(PLAIN, settings, coordinator, keys, monkeypatch) as scene:
        bare = written(f"GET {JOB} HTTP/1.1")
        begun = scene.get()[: -len(b"\r\n")] + b"X: "
        host = next(line for line in bare.split(b"\r\n") if line.lower().startswith(b"host:"))
        await scene.client.send(begun.replace(host + b"\r\n", b""))
        async with asyncio.timeout(SAFETY_NET):
            while not scene.reads:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)
        assert (await scene.ask(bare)).status == 200
        assert (await scene.ask(bare)).status == 401


async def test_many_clients_that_ask_at_once_are_answered_once_each(
    settings: Settings,
    coordinator: ScriptedCoordinator,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with scene_of(PLAIN, settings, coordinator, keys, monkeypatch) as scene:
        await scene.ask(scene.get())

        async def poll(count: int) -> list[Answer]:
            async with scene.server.client() as client:
                answers = []
                for _ in range(count):
                    await client.send(scene.get())
                    answers.append(await client.answer())
                return answers

        polled = [
            each for some in await asyncio.gather(*(poll(5) for _ in range(20))) for each in some
        ]
        assert {each.status for each in polled} == {200}
        assert len({each.headers["x-request-id"] for each in polled}) == 100
        assert len(scene.reads) == 1


async def test_what_is_remembered_is_bounded(
    settings: Settings,
    coordinator: ScriptedCoordinator,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.gateway.repeats._MOST_BYTES", 2000)
    async with scene_of(PLAIN, settings, coordinator, keys, monkeypatch) as scene:
        for number in range(20):
            for _ in range(2):
                assert (await scene.ask(scene.get(f"X-Number: {number:03}"))).status == 200
        assert len(scene.reads) == 20
        await scene.ask(scene.get("X-Number: 000"))
        assert len(scene.reads) == 21
        # Longer than any that is remembered.
        for _ in range(2):
            await scene.ask(scene.get(f"X-Long: {'x' * 5000}"))
        assert len(scene.reads) == 23
