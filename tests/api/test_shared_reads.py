"""Many clients that poll: one call of the coordinator, and each its own answer."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import grpc
import pytest

from app.bridge.converters import to_json
from app.gateway.settings import Settings
from app.scaikey.api_keys import create_key
from generated.mindcoordinator.v1.cluster_pb2 import ClusterStatus, Node
from generated.mindcoordinator.v1.jobs_pb2 import (
    JOB_STATUS_CANCELLED,
    JOB_STATUS_TRAINING,
    GetJobRequest,
    Job,
)
from generated.mindcoordinator.v1.queue_pb2 import GetQueueStatusRequest, GetQueueStatusResponse
from tests.api.conftest import Answer, Gateway
from tests.scripted_coordinator import Context, Failure

BASE = "/v1/modules/scaimind"


class Held:
    """Answers of GetJob that wait until they are let go, in the order in which they came."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[Job]] = []
        self.came = asyncio.Condition()

    async def __call__(self, request: GetJobRequest, context: Context) -> Job:
        future: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        async with self.came:
            self.waiting.append(future)
            self.came.notify_all()
        return await future

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60), self.came:
            await self.came.wait_for(lambda: len(self.waiting) >= count)


def job(revision: int = 1) -> Job:
    return Job(job_id="j", tenant_id="acme", status=JOB_STATUS_TRAINING, revision=revision)


@pytest.fixture
async def sharing(start: Callable[[Settings], Awaitable[Gateway]], settings: Settings) -> Gateway:
    """What was read is shared for as long as it may be."""
    return await start(replace(settings, upstream=replace(settings.upstream, shared_reads=1.0)))


def asks(gateway: Gateway, count: int, **options: object) -> list["asyncio.Task[Answer]"]:
    return [
        asyncio.create_task(gateway.ask("GET", f"{BASE}/jobs/j", **options))  # type: ignore[arg-type]
        for _ in range(count)
    ]


async def test_a_hundred_polls_are_one_call_and_each_has_its_own_request_id(
    sharing: Gateway,
) -> None:
    held = Held()
    sharing.coordinator.answer("GetJob", held)
    tasks = asks(sharing, 100)
    await held.until(1)
    held.waiting[0].set_result(job())
    answers = await asyncio.gather(*tasks)
    # A moment later, too.
    answers += await asyncio.gather(*asks(sharing, 10))
    assert {answer.status for answer in answers} == {200}
    assert {answer.body for answer in answers} == {answers[0].body}
    assert len({answer.headers["X-Request-ID"] for answer in answers}) == len(answers)
    assert len(sharing.coordinator.requests("GetJob")) == 1


async def test_who_may_not_read_is_refused_while_others_are_answered(sharing: Gateway) -> None:
    sharing.coordinator.answer("GetJob", job())
    assert (await sharing.ask("GET", f"{BASE}/jobs/j")).status == 200
    evaluates = sharing.keys.by_permission["scaimind:evaluate"]
    refused = await sharing.ask("GET", f"{BASE}/jobs/j", key=evaluates)
    assert refused.status == 403
    assert (await sharing.ask("GET", f"{BASE}/jobs/j", key="nobody")).status == 401


async def test_tenants_users_and_permissions_are_never_mixed(sharing: Gateway) -> None:
    def key(tenant: str, user: str, role: str) -> str:
        return create_key(sharing.keys.dsn, tenant_id=tenant, user_id=user, roles=[role]).secret

    who = [
        ("acme", "ann", "tenant_admin"),
        ("acme", "ann", "tenant_viewer"),
        ("acme", "bob", "tenant_admin"),
        ("rival", "ann", "tenant_admin"),
    ]
    keys = [await asyncio.to_thread(key, *each) for each in who]

    async def own(request: GetJobRequest, context: Context) -> Job:
        metadata = dict(context.invocation_metadata())
        return Job(
            job_id="j",
            tenant_id=metadata["x-tenant-id"],
            user_id=metadata["x-user-id"],
            status=JOB_STATUS_TRAINING,
        )

    sharing.coordinator.answer("GetJob", own)
    answers = await asyncio.gather(
        *(sharing.ask("GET", f"{BASE}/jobs/j", key=each) for each in keys * 5)
    )
    told = [(each.json["data"]["tenant_id"], each.json["data"]["user_id"]) for each in answers]
    assert told == [(tenant, user) for tenant, user, _ in who] * 5
    assert len(sharing.coordinator.requests("GetJob")) == len(who)


async def test_a_read_behind_a_write_never_gets_what_was_before_it(sharing: Gateway) -> None:
    held = Held()
    sharing.coordinator.answer("GetJob", held)
    before = asks(sharing, 3)
    await held.until(1)
    sharing.coordinator.answer("CancelJob", job(2))
    assert (await sharing.ask("POST", f"{BASE}/jobs/j/cancel")).status == 200
    behind = asks(sharing, 3)
    await held.until(2)
    held.waiting[1].set_result(Job(job_id="j", status=JOB_STATUS_CANCELLED, revision=2))
    for answer in await asyncio.gather(*behind):
        assert answer.json["data"]["status"] == "CANCELLED"
    # Those who asked before the write was answered are told what was then.
    held.waiting[0].set_result(job())
    for answer in await asyncio.gather(*before):
        assert answer.json["data"]["status"] == "TRAINING"
    # And what arrives late is kept for nobody.
    [late] = asks(sharing, 1)
    assert (await late).json["data"]["status"] == "CANCELLED"


async def test_a_write_that_failed_may_have_happened(sharing: Gateway) -> None:
    sharing.coordinator.answer("GetJob", job())
    sharing.coordinator.answer("CancelJob", Failure(grpc.StatusCode.INTERNAL))
    await sharing.ask("GET", f"{BASE}/jobs/j")
    assert (await sharing.ask("POST", f"{BASE}/jobs/j/cancel")).status >= 500
    await sharing.ask("GET", f"{BASE}/jobs/j")
    assert len(sharing.coordinator.requests("GetJob")) == 2


async def test_a_drained_node_is_shown_to_other_tenants_at_once(sharing: Gateway) -> None:
    other = await asyncio.to_thread(
        lambda: (
            create_key(
                sharing.keys.dsn, tenant_id="rival", user_id="r", roles=["tenant_admin"]
            ).secret
        )
    )
    sharing.coordinator.answer("GetClusterStatus", ClusterStatus(total_nodes=1))
    sharing.coordinator.answer("DrainNode", Node(node_id="n"))
    await sharing.ask("GET", f"{BASE}/cluster", key=other)
    drained = await sharing.ask("POST", f"{BASE}/cluster/nodes/n/drain")
    assert drained.status == 200, drained.body
    await sharing.ask("GET", f"{BASE}/cluster", key=other)
    assert len(sharing.coordinator.requests("GetClusterStatus")) == 2


async def test_an_error_is_everybodys_who_waited_and_nobody_elses(sharing: Gateway) -> None:
    held = Held()
    sharing.coordinator.answer("GetJob", held)
    tasks = asks(sharing, 5)
    await held.until(1)
    # Breaks the contract: another job than the one that was asked for.
    held.waiting[0].set_result(Job(job_id="another"))
    answers = await asyncio.gather(*tasks)
    assert {answer.error["code"] for answer in answers} == {"COORDINATOR_ERROR"}
    [task] = asks(sharing, 1)
    await held.until(2)
    held.waiting[1].set_result(job())
    assert (await task).status == 200


async def test_each_answer_is_of_its_own_path_and_query(sharing: Gateway) -> None:
    async def queue(request: GetQueueStatusRequest, context: Context) -> GetQueueStatusResponse:
        return GetQueueStatusResponse(total_queued=request.page_size)

    sharing.coordinator.answer("GetQueueStatus", queue)
    for size in (1, 2, 1):
        answer = await sharing.ask("GET", f"{BASE}/queue?page_size={size}")
        assert answer.json["data"]["total_queued"] == size
    assert len(sharing.coordinator.requests("GetQueueStatus")) == 2


async def test_a_job_that_has_not_changed_is_not_converted(
    sharing: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharing.coordinator.answer("GetJob", job(7))
    converted = 0

    def count(message: Job) -> dict[str, object]:
        nonlocal converted
        converted += 1
        return to_json(message)

    monkeypatch.setattr("app.bridge.calls.jobs.to_json", count)
    headers = {"If-None-Match": '"7"'}
    for answer in await asyncio.gather(*asks(sharing, 5, headers=headers)):
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", '"7"')
    assert converted == 0
    answer, *others = await asyncio.gather(*asks(sharing, 5))
    assert answer.json["data"]["revision"] == 7
    assert [other.body for other in others] == [answer.body] * 4
    assert converted == 1


async def test_with_no_time_nothing_is_shared(gateway: Gateway) -> None:
    held = Held()
    gateway.coordinator.answer("GetJob", held)
    tasks = asks(gateway, 3)
    await held.until(3)
    for future in held.waiting:
        future.set_result(job())
    assert {(await task).status for task in tasks} == {200}
