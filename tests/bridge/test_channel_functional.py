import asyncio
import socket
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import (  # type: ignore[import-untyped]  # no stubs
    health,
    health_pb2,
    health_pb2_grpc,
)

from app import errors
from app.bridge.channel import IDEMPOTENT_READS, SERVICE, channel_options, open_channel
from app.bridge.client import CoordinatorClient
from app.bridge.errors import translated_errors
from app.bridge.settings import UpstreamSettings
from app.caller import Caller
from app.errors import ApiError
from generated.mindcoordinator.v1.coordinator_pb2_grpc import MindCoordinatorStub
from generated.mindcoordinator.v1.jobs_pb2 import Job
from generated.mindcoordinator.v1.watch_pb2 import WatchJobRequest, WatchJobResponse
from tests.bridge.conftest import API_SECRET
from tests.bridge.relay import Relay
from tests.scripted_coordinator import SERVICE as CONTRACT
from tests.scripted_coordinator import ScriptedCoordinator


async def test_it_comes_back_with_the_coordinator(
    client: CoordinatorClient,
    channel: grpc.aio.Channel,
    caller: Caller,
    coordinator: ScriptedCoordinator,
) -> None:
    coordinator.answer("GetJob", Job(job_id="j"))
    assert (await client.get_job(caller, "j"))["job_id"] == "j"

    await coordinator.stop()
    with pytest.raises(ApiError) as failed:
        await client.cancel_job(caller, "j")
    assert failed.value.kind is errors.COORDINATOR_UNAVAILABLE

    await coordinator.start()
    await channel.channel_ready()
    assert (await client.get_job(caller, "j"))["job_id"] == "j"


async def test_all_calls_share_one_connection(
    client: CoordinatorClient, caller: Caller, coordinator: ScriptedCoordinator
) -> None:
    await asyncio.gather(*(client.get_job(caller, f"j{n}") for n in range(20)))

    assert len({request.peer for request in coordinator.requests("GetJob")}) == 1


async def test_a_peer_that_hangs_is_found_by_keepalive(caller: Caller) -> None:
    options = [("grpc.http2.min_ping_interval_without_data_ms", 100)]
    async with ScriptedCoordinator(options=options) as coordinator:
        opened = asyncio.Event()

        async def watch(_: object, context: object) -> AsyncIterator[WatchJobResponse]:
            yield WatchJobResponse()
            opened.set()
            await asyncio.Event().wait()

        coordinator.answer("WatchJob", watch)
        async with Relay(coordinator.port).running() as relay:
            settings = UpstreamSettings(
                address=relay.address,
                api_secret=API_SECRET,
                keepalive_time=0.5,
                keepalive_timeout=3.0,
            )
            async with open_channel(settings) as channel:
                stub = MindCoordinatorStub(channel)
                call = stub.WatchJob(WatchJobRequest(job_id="j"))
                await call.read()
                await opened.wait()
                relay.fall_silent()

                # No deadline on a stream: without keepalive this would wait for ever.
                with pytest.raises(ApiError) as failed, translated_errors(method="WatchJob"):
                    await call.read()

    assert failed.value.kind is errors.COORDINATOR_UNAVAILABLE
    assert relay.connections == 1


async def test_a_slow_link_connects_at_its_first_attempt(
    caller: Caller, coordinator: ScriptedCoordinator
) -> None:
    async with Relay(coordinator.port, delay=1.5).running() as relay:
        settings = UpstreamSettings(
            address=relay.address,
            api_secret=API_SECRET,
            unary_timeout=60,
            connect_timeout=60,
            reconnect_min=0.1,
            reconnect_max=0.1,
        )
        async with open_channel(settings) as channel:
            client = CoordinatorClient(channel=channel, settings=settings)
            await client.get_job(caller, "j")
    assert relay.connections == 1


async def test_an_attempt_has_the_reconnection_delay_at_least(
    caller: Caller, coordinator: ScriptedCoordinator
) -> None:
    async with Relay(coordinator.port, delay=1.5).running() as relay:
        settings = UpstreamSettings(
            address=relay.address,
            api_secret=API_SECRET,
            unary_timeout=60,
            connect_timeout=0.1,
            reconnect_min=30,
            reconnect_max=30,
        )
        async with open_channel(settings) as channel:
            client = CoordinatorClient(channel=channel, settings=settings)
            await client.get_job(caller, "j")
    assert relay.connections == 1


async def test_a_port_where_nobody_listens(caller: Caller) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = UpstreamSettings(address=address, api_secret=API_SECRET)
        async with open_channel(settings) as channel:
            client = CoordinatorClient(channel=channel, settings=settings)
            with pytest.raises(ApiError) as failed:
                await client.cancel_job(caller, "j")

    assert failed.value.kind is errors.COORDINATOR_UNAVAILABLE
    assert failed.value.message == errors.COORDINATOR_UNAVAILABLE.text
    assert failed.value.retry_after == 2


async def test_a_proxy_variable_is_not_heeded(
    monkeypatch: pytest.MonkeyPatch, coordinator: ScriptedCoordinator, caller: Caller
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    settings = UpstreamSettings(address=coordinator.address, api_secret=API_SECRET)
    async with open_channel(settings) as channel:
        client = CoordinatorClient(channel=channel, settings=settings)
        await client.get_job(caller, "j")

    assert len(coordinator.requests("GetJob")) == 1


async def test_with_credentials_it_does_not_speak_plain_text(caller: Caller) -> None:
    credentials = grpc.local_server_credentials(grpc.LocalConnectionType.LOCAL_TCP)
    async with ScriptedCoordinator(credentials=credentials) as coordinator:
        settings = UpstreamSettings(address=coordinator.address, api_secret=API_SECRET)
        async with open_channel(
            settings,
            credentials=grpc.local_channel_credentials(grpc.LocalConnectionType.LOCAL_TCP),
        ) as channel:
            client = CoordinatorClient(channel=channel, settings=settings)
            await client.get_job(caller, "j")

        async with open_channel(settings, credentials=grpc.ssl_channel_credentials()) as channel:
            client = CoordinatorClient(channel=channel, settings=settings)
            with pytest.raises(ApiError) as failed:
                await client.cancel_job(caller, "j")

    assert failed.value.kind is errors.COORDINATOR_UNAVAILABLE
    assert len(coordinator.requests("GetJob")) == 1
    assert not coordinator.requests("CancelJob")


def test_reads_that_are_retried_are_methods_of_the_service() -> None:
    assert CONTRACT.full_name == SERVICE
    assert set(IDEMPOTENT_READS) <= set(CONTRACT.methods_by_name)
    assert all(method.startswith(("Get", "List")) for method in IDEMPOTENT_READS), (
        "only reads may be repeated"
    )


def test_settings_reach_the_channel() -> None:
    settings = UpstreamSettings(
        api_secret=API_SECRET,
        keepalive_time=7.5,
        keepalive_timeout=2.5,
        connect_timeout=6.5,
        reconnect_min=0.25,
        reconnect_max=4.0,
        max_message_bytes=2**20,
    )

    options = dict(channel_options(settings))

    assert options["grpc.keepalive_time_ms"] == 7500
    assert options["grpc.keepalive_timeout_ms"] == 2500
    assert options["grpc.http2.ping_timeout_ms"] == 2500
    assert options["grpc.http2.max_pings_without_data"] == 0
    assert options["grpc.initial_reconnect_backoff_ms"] == 250
    assert options["grpc.min_reconnect_backoff_ms"] == 6500
    assert options["grpc.max_reconnect_backoff_ms"] == 4000
    assert options["grpc.max_send_message_length"] == 2**20
    assert options["grpc.max_receive_message_length"] == 2**20


@pytest.mark.parametrize("serving", [True, False])
async def test_of_several_the_one_that_is_healthy_as_a_whole_is_called(serving: bool) -> None:
    """A coordinator need not name the service in its health: many programs name none."""
    statuses = health_pb2.HealthCheckResponse
    healths = health.aio.HealthServicer()
    await healths.set("", statuses.SERVING if serving else statuses.NOT_SERVING)
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(healths, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        given = UpstreamSettings(address=f"dns:///127.0.0.1:{port}", api_secret="secret")
        async with open_channel(given) as channel:
            asking = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=60
            )
            if serving:
                assert (await asking).status == statuses.SERVING
            else:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await asking
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await server.stop(None)
