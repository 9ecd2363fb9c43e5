"""Reads over a connection of their own, beside gRPC's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from app import errors
from app.bridge.channel import SERVICE, open_channel
from app.bridge.client import CoordinatorClient
from app.bridge.contract.breaches import Breach
from app.bridge.settings import UpstreamSettings
from app.bridge.transport.direct_channel import DirectReads, has_one_address
from app.caller import Caller
from app.errors import ApiError, BrokenContract
from generated.mindcoordinator.v1.jobs_pb2 import GetJobRequest, Job, ListJobsResponse
from tests.bridge.conftest import API_SECRET, PATIENCE
from tests.bridge.relay import Relay
from tests.scripted_coordinator import Failure, Raw, ScriptedCoordinator


def settings_of(address: str, **given: Any) -> UpstreamSettings:
    """Nothing here is late, or idle for too long, unless a test wants it."""
    usual = {"direct_reads": 1, "reconnect_min": 0.1, "reconnect_max": 0.1}
    patient = {"unary_timeout": PATIENCE, "keepalive_time": 5 * PATIENCE}
    return UpstreamSettings(address=address, api_secret=API_SECRET, **{**usual, **patient, **given})


@asynccontextmanager
async def client_of(address: str, **given: Any) -> AsyncIterator[CoordinatorClient]:
    settings = settings_of(address, **given)
    async with open_channel(settings) as channel:
        yield CoordinatorClient(channel=channel, settings=settings)


async def reads_directly(
    client: CoordinatorClient, caller: Caller, coordinator: ScriptedCoordinator
) -> str:
    """Read until reads have a connection of their own; returns its other end."""
    await client.drain_node(caller, "n")
    of_grpc = coordinator.requests("DrainNode")[-1].peer
    async with asyncio.timeout(PATIENCE):
        while True:
            await client.get_node(caller, "n")
            last = coordinator.requests("GetNode")[-1].peer
            if last != of_grpc:
                return last
            await asyncio.sleep(0.01)


async def test_many_reads_go_over_one_connection_of_their_own_and_writes_do_not(
    coordinator: ScriptedCoordinator, caller: Caller
) -> None:
    coordinator.answer("ListJobs", ListJobsResponse(jobs=[Job(job_id="j")]))
    async with client_of(coordinator.address) as client:
        peer = await reads_directly(client, caller, coordinator)
        answers = await asyncio.gather(*(client.get_job(caller, f"j{n}") for n in range(30)))
        page = await client.list_jobs(caller)
        await client.cancel_job(caller, "j")

    assert [each["job_id"] for each in answers] == [f"j{n}" for n in range(30)]
    assert page["jobs"][0]["job_id"] == "j"
    assert {each.peer for each in coordinator.requests("GetJob")} == {peer}
    assert {each.peer for each in coordinator.requests("ListJobs")} == {peer}
    assert coordinator.requests("CancelJob")[0].peer != peer


async def test_the_coordinator_sees_the_same_call(
    coordinator: ScriptedCoordinator, caller: Caller
) -> None:
    async with client_of(coordinator.address) as client:
        await client.get_job(caller, "j")
        await reads_directly(client, caller, coordinator)
        await client.get_job(caller, "j")

    by_grpc, direct = coordinator.requests("GetJob")
    assert by_grpc.peer != direct.peer
    assert direct.message == by_grpc.message
    changing = {"user-agent", "traceparent"}
    assert {key: value for key, value in direct.metadata.items() if key not in changing} == {
        key: value for key, value in by_grpc.metadata.items() if key not in changing
    }
    assert direct.metadata["traceparent"]
    assert direct.time_remaining is not None
    assert 0 < direct.time_remaining <= PATIENCE


@pytest.mark.parametrize(
    ("address", "one"),
    [
        ("coordinator:50051", True),
        ("[::1]:1", True),
        ("coordinator:65536", False),
        ("unix:/run/c.sock", False),
        ("10.0.0.1:1,10.0.0.2:2", False),
        ("dns:///name:1", False),
    ],
)
def test_one_address_can_be_connected_to(address: str, one: bool) -> None:
    assert has_one_address(address) == one


async def test_a_host_that_is_no_name_is_left_to_grpc() -> None:
    address = f"{'long' * 20}:50051"
    settings = UpstreamSettings(address=address, api_secret=API_SECRET, direct_reads=1)
    reads = DirectReads(settings)
    assert reads.connection() is None
    assert reads._connecting is not None
    await reads._connecting
    assert reads.connection() is None
    await reads.close()


async def test_reads_that_are_seldom_share_grpcs_connection(
    coordinator: ScriptedCoordinator, caller: Caller
) -> None:
    async with client_of(coordinator.address, direct_reads=1000) as client:
        for _ in range(20):
            await client.get_job(caller, "j")
        await client.cancel_job(caller, "j")
    (peer,) = {each.peer for each in coordinator.requests("CancelJob")}
    assert {each.peer for each in coordinator.requests("GetJob")} == {peer}


STATUS = grpc.StatusCode


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (Failure(STATUS.NOT_FOUND, "no such job"), errors.JOB_NOT_FOUND, "no such job"),
        (Failure(STATUS.FAILED_PRECONDITION, "ä %"), errors.FAILED_PRECONDITION, "ä %"),
        (
            Failure(STATUS.RESOURCE_EXHAUSTED, "later", (("a-bin", b"\x00"),)),
            errors.RESOURCE_EXHAUSTED,
            "later",
        ),
        (Failure(STATUS.INTERNAL, ""), errors.COORDINATOR_ERROR, None),
        (Raw(b"\xff\xff"), errors.COORDINATOR_ERROR, None),
    ],
)
async def test_what_goes_wrong_is_what_grpc_makes_of_it(
    answer: Failure | Raw,
    kind: errors.ErrorKind,
    message: str | None,
    coordinator: ScriptedCoordinator,
    caller: Caller,
) -> None:
    coordinator.answer("GetJob", answer)
    async with client_of(coordinator.address, max_message_bytes=64 * 1024) as client:
        await reads_directly(client, caller, coordinator)
        with pytest.raises(ApiError) as failed:
            await client.get_job(caller, "j")
        assert failed.value.kind is kind
        assert failed.value.message == (message or kind.text)
        assert len(coordinator.requests("GetJob")) == 1
        assert (await client.get_node(caller, "n"))["node_id"] == "n"


async def test_an_answer_that_is_too_long_is_what_grpc_makes_of_it(
    coordinator: ScriptedCoordinator, caller: Caller
) -> None:
    coordinator.answer("GetJob", Raw(bytes(70 * 1024)))
    async with client_of(coordinator.address, max_message_bytes=64 * 1024) as client:
        await reads_directly(client, caller, coordinator)
        with pytest.raises(BrokenContract) as failed:
            await client.get_job(caller, "j")
    assert failed.value.breach == Breach.TOO_LARGE


async def test_a_read_is_retried_while_the_coordinator_is_unavailable(
    coordinator: ScriptedCoordinator, caller: Caller
) -> None:
    coordinator.answer("GetJob", Failure(grpc.StatusCode.UNAVAILABLE), Job(job_id="j"))
    async with client_of(coordinator.address) as client:
        await reads_directly(client, caller, coordinator)
        assert (await client.get_job(caller, "j"))["job_id"] == "j"


async def test_a_coordinator_that_does_not_lead_is_left_to_grpc_for_a_while(
    coordinator: ScriptedCoordinator, caller: Caller
) -> None:
    not_leading = Failure(grpc.StatusCode.UNAVAILABLE)
    given = {"reconnect_min": 600.0, "reconnect_max": 600.0, "read_attempts": 1}
    given["keepalive_time"] = 600.0
    async with client_of(coordinator.address, **given) as client:
        direct = await reads_directly(client, caller, coordinator)
        coordinator.answer("GetJob", *[not_leading] * 6)
        for _ in range(4):
            with pytest.raises(ApiError):
                await client.get_job(caller, "j")
    peers = [each.peer for each in coordinator.requests("GetJob")]
    assert peers.count(direct) == 1
    assert len(peers) == 5


async def test_reads_go_on_when_the_coordinator_comes_back(
    coordinator: ScriptedCoordinator, caller: Caller
) -> None:
    settings = settings_of(coordinator.address)
    async with open_channel(settings) as channel:
        client = CoordinatorClient(channel=channel, settings=settings)
        before = await reads_directly(client, caller, coordinator)
        waiting = asyncio.Event()

        async def answer(request: Any, _: object) -> Job:
            if not waiting.is_set():
                waiting.set()
                await asyncio.Event().wait()
            return Job(job_id=request.job_id)

        coordinator.answer("GetJob", answer)
        reading = asyncio.create_task(client.get_job(caller, "j"), name="read")
        await waiting.wait()
        await coordinator.stop()
        await coordinator.start()
        # gRPC makes it again, if the coordinator is back before its attempts are used up.
        (result,) = await asyncio.gather(reading, return_exceptions=True)
        assert isinstance(result, dict) or (
            isinstance(result, ApiError) and result.kind is errors.COORDINATOR_UNAVAILABLE
        )
        await channel.channel_ready()
        assert await reads_directly(client, caller, coordinator) != before


async def test_a_read_that_hangs_ends_at_its_deadline(
    coordinator: ScriptedCoordinator, caller: Caller
) -> None:
    async def never(_: object, __: object) -> Job:
        await asyncio.Event().wait()
        raise AssertionError

    coordinator.answer("GetJob", never)
    patient = settings_of(coordinator.address)
    hasty = replace(patient, unary_timeout=0.3)
    async with open_channel(patient) as channel:
        await reads_directly(
            CoordinatorClient(channel=channel, settings=patient), caller, coordinator
        )
        with pytest.raises(ApiError) as failed:
            await CoordinatorClient(channel=channel, settings=hasty).get_job(caller, "j")
    assert failed.value.kind is errors.COORDINATOR_TIMEOUT


async def test_a_peer_that_hangs_is_found(coordinator: ScriptedCoordinator, caller: Caller) -> None:
    async with Relay(coordinator.port).running() as relay:
        patient = settings_of(relay.address, keepalive_time=0.5, keepalive_timeout=0.5)
        hasty = replace(patient, unary_timeout=3.0)
        async with open_channel(patient) as channel:
            await reads_directly(
                CoordinatorClient(channel=channel, settings=patient), caller, coordinator
            )
            relay.fall_silent()
            with pytest.raises(ApiError) as failed:
                await CoordinatorClient(channel=channel, settings=hasty).get_job(caller, "j")
    assert failed.value.kind in (errors.COORDINATOR_UNAVAILABLE, errors.COORDINATOR_TIMEOUT)


async def test_a_read_that_is_cancelled_is_cancelled_at_the_coordinator(
    coordinator: ScriptedCoordinator, caller: Caller
) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(_: object, __: object) -> Job:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    coordinator.answer("GetJob", wait)
    async with client_of(coordinator.address) as client:
        await reads_directly(client, caller, coordinator)
        reading = asyncio.create_task(client.get_job(caller, "j"), name="read")
        await begun.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await cancelled.wait()


async def test_long_answers_pass(coordinator: ScriptedCoordinator, caller: Caller) -> None:
    long = Job(job_id="j", name="n" * 700_000)
    coordinator.answer("GetJob", long)
    async with client_of(coordinator.address, max_message_bytes=1024 * 1024) as client:
        peer = await reads_directly(client, caller, coordinator)
        for _ in range(5):
            assert len((await client.get_job(caller, "j"))["name"]) == 700_000
    assert {each.peer for each in coordinator.requests("GetJob")} == {peer}


async def test_a_read_on_a_closed_channel_is_refused(
    coordinator: ScriptedCoordinator, caller: Caller
) -> None:
    begun = asyncio.Event()

    async def wait(_: object, __: object) -> Job:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    coordinator.answer("GetJob", wait)
    async with client_of(coordinator.address) as client:
        await reads_directly(client, caller, coordinator)
        reading = asyncio.create_task(client.get_job(caller, "j"), name="read")
        await begun.wait()
    with pytest.raises(ApiError) as failed:
        await reading
    assert failed.value.kind is errors.SHUTTING_DOWN


async def test_an_answer_that_is_asked_for_as_bytes_is_bytes(
    coordinator: ScriptedCoordinator, caller: Caller
) -> None:
    settings = settings_of(coordinator.address)
    async with open_channel(settings) as channel:
        client = CoordinatorClient(channel=channel, settings=settings)
        peer = await reads_directly(client, caller, coordinator)
        asking: grpc.aio.UnaryUnaryMultiCallable[GetJobRequest, bytes] = channel.unary_unary(
            f"/{SERVICE}/GetJob", request_serializer=GetJobRequest.SerializeToString
        )
        answer = await asking(GetJobRequest(job_id="j"), timeout=PATIENCE, metadata=())
    assert answer == Job(job_id="j").SerializeToString()
    assert coordinator.requests("GetJob")[0].peer == peer
