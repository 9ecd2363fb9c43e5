"""Whose jobs are taken up on a machine where tenants cannot be parted."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from app.coordinator.isolation import probe
from app.coordinator.settings.coordinator import BadConfig
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest, RetryJobRequest
from tests.coordinator.harness import Client, client_of, running, status_of, submission

REFUSED = "bwrap: Creating new namespace failed: Operation not permitted"


@pytest.fixture
def no_sandboxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that refuses namespaces, and users of their own."""
    monkeypatch.setattr(probe, "_run", lambda *_: REFUSED)


async def refused(client: Client) -> str:
    """Why a submission is refused, which it must be."""
    client.write("train.py", "pass")
    request = submission()
    request.training_config.framework.custom_script_path = f"scaidrive://{client.tenant}/train.py"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.call("SubmitJob", request)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    return str(caught.value.details())


async def completes(client: Client) -> None:
    assert status_of(await client.end(await client.submit("pass"))) == "COMPLETED"


@pytest.mark.usefixtures("no_sandboxes")
async def test_the_first_tenant_is_the_only_one(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as (coordinator, first),
        client_of(coordinator.port, tmp_path / "drive", "second") as second,
    ):
        await completes(first)
        reason = await refused(second)
        assert "landlock" in reason
        assert REFUSED in reason
        assert "SCAIMIND_COORDINATOR_ISOLATION" in reason
        assert first.tenant not in reason
        await completes(first)


async def test_the_owner_of_the_newest_job_is_the_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        running(tmp_path) as (coordinator, first),
        client_of(coordinator.port, tmp_path / "drive", "second") as second,
    ):
        failed = await first.submit("raise SystemExit(1)")
        await first.end(failed)
        waits = await first.submit("import time; time.sleep(600)")
        await completes(second)
    monkeypatch.setattr(probe, "_run", lambda *_: REFUSED)
    async with (
        running(tmp_path) as (coordinator, first),
        client_of(coordinator.port, tmp_path / "drive", "second") as second,
    ):
        await completes(second)
        await refused(first)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await first.call("RetryJob", RetryJobRequest(job_id=failed))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        # What was accepted goes on, and can be read and steered.
        job = await first.until_status(waits, "TRAINING")
        assert job.run_count == 2
        await first.call("CancelJob", CancelJobRequest(job_id=waits))
        assert status_of(await first.end(waits)) == "CANCELLED"


@pytest.mark.usefixtures("no_sandboxes")
async def test_a_level_that_is_named_serves_all_tenants(tmp_path: Path) -> None:
    async with (
        running(tmp_path, isolation="landlock") as (coordinator, first),
        client_of(coordinator.port, tmp_path / "drive", "second") as second,
    ):
        await completes(first)
        await completes(second)


@pytest.mark.usefixtures("no_sandboxes")
@pytest.mark.parametrize(
    "settings", [{"isolation": "namespaces"}, {"isolation": "user"}, {"job_network": "none"}]
)
async def test_a_level_that_is_demanded_and_refused_stops_the_start(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(BadConfig) as caught:
        async with running(tmp_path, **settings):
            pass
    assert REFUSED in str(caught.value)
    assert "SCAIMIND_COORDINATOR_ISOLATION" in str(caught.value)
    assert "run the coordinator as root" in str(caught.value)


async def test_jobs_without_the_network_have_loopback(tmp_path: Path) -> None:
    script = """
        import os, socket
        with socket.create_server(("127.0.0.1", 0)) as listener:
            socket.create_connection(listener.getsockname()).close()
        print("interfaces", [name for _, name in socket.if_nameindex()])
        try:
            socket.create_connection(("127.0.0.1", int(os.environ["PORT"])))
        except OSError as error:
            print("refused", error.strerror)
    """
    async with running(tmp_path, job_network="none") as (coordinator, client):
        job_id = await client.submit(
            script, training_config={"environment": {"PORT": str(coordinator.port)}}
        )
        assert status_of(await client.end(job_id)) == "COMPLETED"
        lines = [entry.message for entry in await client.log(job_id)]
        assert "interfaces ['lo']" in lines
        assert "refused Connection refused" in lines


async def test_more_data_sources_than_can_be_mounted_are_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        path = client.write("data.jsonl", "x")
        client.write("train.py", "pass")
        request = submission(data_config={"sources": [{"path": path}] * 257})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("SubmitJob", request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "put the files into a directory" in str(caught.value.details())
