"""What an idempotency key promises: the same request once, for a day, whatever happens between."""

import asyncio
import signal
from pathlib import Path

import grpc
import pytest

from app.coordinator.server import Coordinator
from generated.mindcoordinator.v1.evaluations_pb2 import Benchmark, SubmitEvaluationRequest
from generated.mindcoordinator.v1.jobs_pb2 import ListJobsRequest
from tests.coordinator.harness import (
    Client,
    client_of,
    config_for,
    coordinator_process,
    running,
    submission,
)
from tests.coordinator.test_evaluations_functional import trained

DAY = 24 * 3600 * 1_000_000


class SomebodyElse(Client):
    """Another user of the same tenant."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (*super().metadata[:-1], ("x-user-id", "somebody-else"))


class Clock:
    """Stands still, in microseconds since 1970."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000_000

    def __call__(self) -> int:
        return self.now


async def submit(client: Client, **changes: str) -> str:
    job_id: str = (await client.call("SubmitJob", submission(**changes))).job_id
    return job_id


async def count(client: Client) -> int:
    total: int = (await client.call("ListJobs", ListJobsRequest())).total_count
    return total


async def test_requests_at_once_make_one_job(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        client.write("train.py", "pass")
        made = await asyncio.gather(
            *(submit(client, idempotency_key="once") for _ in range(50)),
            *(submit(client, idempotency_key="twice") for _ in range(50)),
        )
        assert len(set(made[:50])) == len(set(made[50:])) == 1
        assert await count(client) == 2
        for job_id in set(made):
            await client.end(job_id)


async def test_users_and_tenants_have_keys_of_their_own(tmp_path: Path) -> None:
    async with running(tmp_path) as (coordinator, client):
        else_ = SomebodyElse(client.stub, client.drive)
        client.write("train.py", "pass")
        first = await submit(client, idempotency_key="nightly")
        second = await submit(else_, idempotency_key="nightly", name="another")
        assert first != second
        assert await submit(client, idempotency_key="nightly") == first
        async with client_of(coordinator.port, client.drive, "acme") as foreign:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await submit(foreign, idempotency_key="nightly")
            # Not the job of the key, and not that there is one: its own folder has no script.
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        await client.end(first)
        await client.end(second)


async def test_jobs_and_evaluations_have_keys_of_their_own(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        client.write("train.py", "pass")
        text = client.write("text.jsonl", '{"text": "ab"}\n')
        request = SubmitEvaluationRequest(
            job_id=await trained(client),
            benchmarks=[Benchmark(name="perplexity", dataset=text)],
            idempotency_key="once",
        )
        job_id = await submit(client, idempotency_key="once")
        first = await client.call("SubmitEvaluation", request)
        again = await client.call("SubmitEvaluation", request)
        assert first.evaluation_id == again.evaluation_id != job_id
        request.benchmarks[0].num_samples = 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("SubmitEvaluation", request)
        assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
        await client.end(job_id)
        await client.end(first.evaluation_id)


async def test_a_key_is_free_again_after_a_day(tmp_path: Path) -> None:
    clock, config = Clock(), config_for(tmp_path)
    async with (
        Coordinator(config, clock=clock) as coordinator,
        client_of(coordinator.port, config.drive_root) as client,
    ):
        client.write("train.py", "pass")
        first = await submit(client, idempotency_key="once")
        clock.now += DAY
        assert await submit(client, idempotency_key="once") == first
        clock.now += 1
        second = await submit(client, idempotency_key="once", name="another")
        assert second != first
        assert await submit(client, idempotency_key="once", name="another") == second
        await client.end(first)
        await client.end(second)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_key_outlives_the_coordinator(tmp_path: Path, how: signal.Signals) -> None:
    drive = tmp_path / "drive"
    async with coordinator_process(tmp_path) as first:
        async with client_of(first.port, drive) as client:
            client.write("train.py", "pass")
            job_id = await submit(client, idempotency_key="once")
        await first.stop(how)
    async with coordinator_process(tmp_path) as second, client_of(second.port, drive) as client:
        assert await submit(client, idempotency_key="once") == job_id
        assert await count(client) == 1
        await client.end(job_id)


async def test_what_was_refused_leaves_the_key_free(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        with pytest.raises(grpc.aio.AioRpcError):
            await submit(client, idempotency_key="once")
        client.write("train.py", "pass")
        job_id = await submit(client, idempotency_key="once", name="another")
        await client.end(job_id)
