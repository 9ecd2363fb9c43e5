"""WatchJobs keeps the promises of the contract."""

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from app.coordinator.jobs.changes import record as record_module
from app.coordinator.jobs.states import Status
from app.coordinator.server import Coordinator
from app.coordinator.settings.virtual_nodes import parse_virtual_nodes
from generated.mindcoordinator.v1.cluster_pb2 import DrainNodeRequest, NodeStatus
from generated.mindcoordinator.v1.jobs_pb2 import (
    CancelJobRequest,
    DeleteJobRequest,
    JobStatus,
    ListJobsRequest,
)
from generated.mindcoordinator.v1.watch_jobs_pb2 import (
    JobsVersion,
    WatchJobsRequest,
    WatchJobsResponse,
)
from tests.coordinator.harness import (
    PATIENCE,
    Client,
    client_of,
    coordinator_process,
    running,
    submission,
)
from tests.coordinator.jobs_watcher import JobsWatcher, until, until_synced, watching
from tests.coordinator.scripts import COUNTS, WAITS
from tests.coordinator.test_job_changes import delete, record, save

PRINTS = "print('hello')"


def has(job_id: str, *names: str) -> Callable[[WatchJobsResponse], bool]:
    statuses = {JobStatus.Value(f"JOB_STATUS_{name}") for name in names}

    def done(message: WatchJobsResponse) -> bool:
        return any(
            change.job.job_id == job_id and change.job.status in statuses
            for change in message.changes
        )

    return done


async def listed(client: Client) -> dict[str, tuple[int, int, str]]:
    """What ListJobs tells of a few jobs."""
    answer = await client.call("ListJobs", ListJobsRequest(page_size=100))
    return {job.job_id: (job.revision, job.status, job.message) for job in answer.jobs}


def known(watcher: JobsWatcher) -> dict[str, tuple[int, int, str]]:
    return {job_id: (job.revision, job.status, job.message) for job_id, job in watcher.jobs.items()}


def fill(
    coordinator: Coordinator, count: int, tenant_id: str = "local", *, padding: int = 0
) -> None:
    """Jobs that have ended, in the store alone, with a message of so many bytes."""
    jobs = (
        replace(
            record(f"job-{n:06d}", tenant_id),
            status=Status.COMPLETED,
            ended_at=3_000_000,
            message="." * padding,
        )
        for n in range(count)
    )
    save(coordinator.controller._store, *jobs)


def count_pages(coordinator: Coordinator) -> Counter[int]:
    """How many pages each stream has read, from here on."""
    pages: Counter[int] = Counter()
    page = coordinator._change_reader.page

    async def counted(*given: Any, **named: Any) -> Any:
        pages[id(asyncio.current_task())] += 1
        return await page(*given, **named)

    coordinator._change_reader.page = counted  # type: ignore[method-assign]
    return pages


async def test_the_state_comes_first_then_synced_then_every_change(tmp_path: Path) -> None:
    watcher = JobsWatcher()
    async with running(tmp_path) as (_, client), watching(client, watcher) as stream:
        message = await until_synced(stream)
        assert message.start.reset
        assert (message.synced, watcher.jobs) == (0, {})
        job_id = await client.submit(PRINTS, labels={"team": "vision"})
        await until(stream, has(job_id, "COMPLETED"))
        assert known(watcher) == await listed(client)
        job = watcher.jobs[job_id]
        assert (job.user_id, job.name, dict(job.labels)) == ("someone", "test", {"team": "vision"})
        assert job.HasField("ended_at")
        # Another one that begins now has the same at once.
        other = JobsWatcher()
        async with watching(client, other) as again:
            await until_synced(again)
        assert known(other) == known(watcher)
        assert other.version == watcher.version
        await client.call("DeleteJob", DeleteJobRequest(job_id=job_id))
        await until(stream, lambda each: any(one.deleted_job_id for one in each.changes))
        assert not watcher.jobs


async def test_a_watcher_that_comes_back_gets_what_has_changed_and_no_more(
    tmp_path: Path,
) -> None:
    watcher = JobsWatcher()
    async with running(tmp_path) as (coordinator, client):
        fill(coordinator, 20)
        job_id = await client.submit(WAITS)
        await client.until_line(job_id, "ready")
        async with watching(client, watcher) as stream:
            await until_synced(stream)
        assert len(watcher.jobs) == 21
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        await client.end(job_id)
        delete(coordinator.controller._store, record("job-000003", "local"))
        async with watching(client, watcher) as stream:
            message = await until_synced(stream)
        assert not message.start.reset
        changes = [each.job.job_id or f"-{each.deleted_job_id}" for each in message.changes]
        assert sorted(changes) == ["-job-000003", job_id]
        assert known(watcher) == await listed(client)
        # Nothing has happened since.
        async with watching(client, watcher) as stream:
            message = await until_synced(stream)
        assert (message.start.reset, list(message.changes)) == (False, [])
        assert message.synced == watcher.version


async def test_where_the_record_does_not_reach_the_whole_state_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "KEPT_CHANGES", 0)
    watcher = JobsWatcher()
    async with running(tmp_path) as (coordinator, client):
        fill(coordinator, 5)
        async with watching(client, watcher) as stream:
            await until_synced(stream)
        store = coordinator.controller._store
        delete(store, record("job-000001", "local"), now=1)
        delete(store, record("job-000002", "local"), now=2 * record_module.KEPT_FOR)
        for place in (
            watcher.place,
            JobsVersion(epoch="another", version=watcher.version),
            JobsVersion(epoch=watcher.epoch, version=1_000_000),
        ):
            async with watching(client, watcher, after=place) as stream:
                message = await until_synced(stream)
            assert message.start.reset
            assert not any(each.deleted_job_id for each in message.changes)
            assert sorted(watcher.jobs) == ["job-000000", "job-000003", "job-000004"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with watching(
                client, watcher, after=JobsVersion(epoch=watcher.epoch, version=-1)
            ) as stream:
                await until_synced(stream)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_tenants_see_their_own_jobs_alone(tmp_path: Path) -> None:
    watcher = JobsWatcher()
    async with running(tmp_path) as (coordinator, client):
        fill(coordinator, 3, "another")
        async with watching(client, watcher, nodes=True, queue=True) as stream:
            message = await until_synced(stream)
            assert message.synced == 0
            save(coordinator.controller._store, record("job-foreign", "another"))
            job_id = await client.submit(PRINTS)
            await until(stream, has(job_id, "COMPLETED"))
        assert list(watcher.jobs) == [job_id]
        told = b"".join(each.SerializeToString() for each in watcher.messages)
        assert b"job-00000" not in told
        assert b"job-foreign" not in told


async def test_jobs_that_change_while_the_state_is_told_are_in_it(tmp_path: Path) -> None:
    """The state is read in many pages; what changes meanwhile neither stays out nor is dropped."""
    watcher = JobsWatcher()
    async with running(tmp_path) as (coordinator, client):
        fill(coordinator, 3000)
        store = coordinator.controller._store
        changed = [replace(record(f"job-{n:06d}", "local"), revision=5) for n in range(50)]
        async with watching(client, watcher) as stream:
            for at in range(0, 50, 10):
                await anext(stream)
                save(store, *changed[at : at + 10])
                delete(store, record(f"job-{2000 + at:06d}", "local"))
                delete(store, record(f"job-{1000 + at:06d}", "local"))
            await until_synced(stream)
        assert len(watcher.jobs) == 2990
        assert all(watcher.jobs[job.job_id].revision == 5 for job in changed)


async def test_a_slow_reader_holds_up_nobody_and_misses_nothing(tmp_path: Path) -> None:
    """What does not fit into the connection's buffers waits on the disk, and before nobody."""
    slow, fast = JobsWatcher(), JobsWatcher()
    async with running(tmp_path) as (coordinator, client):
        fill(coordinator, 6000, padding=8 * 1024)
        pages = count_pages(coordinator)
        async with (
            client_of(coordinator.port, client.drive) as other,
            watching(other, slow) as slow_stream,
            watching(client, fast) as fast_stream,
        ):
            await anext(slow_stream)
            await until_synced(fast_stream)
            few, many = sorted(pages.values())
            assert few < many / 2
            job_id = await client.submit(PRINTS)
            await until(fast_stream, has(job_id, "COMPLETED"))
            await until(slow_stream, has(job_id, "COMPLETED"))
        assert known(slow) == known(fast)


async def test_nodes_and_the_queue_are_told_as_they_are_then_on_change(tmp_path: Path) -> None:
    nodes = parse_virtual_nodes("v0:1xL4")
    watcher = JobsWatcher()
    async with (
        running(tmp_path, virtual_nodes=nodes) as (_, client),
        watching(client, watcher, nodes=True, queue=True) as stream,
    ):
        message = await until_synced(stream)
        assert sorted(node.node_id for node in message.nodes) == ["local", "v0"]
        assert all(node.HasField("last_heartbeat") for node in message.nodes)
        assert message.HasField("queue")
        assert message.queue.total_queued == 0
        first = await client.submit(WAITS, resource_config={"gpu_count": 1})
        second = await client.submit(WAITS, resource_config={"gpu_count": 1})
        message = await until(stream, lambda each: each.HasField("queue"))
        while [job.job_id for job in message.queue.queued_jobs] != [second]:
            message = await until(stream, lambda each: each.HasField("queue"))
        told = [node for each in watcher.messages for node in each.nodes if node.running_jobs]
        assert [(node.node_id, list(node.running_job_ids)) for node in told][:1] == [
            ("v0", [first])
        ]
        await client.call("DrainNode", DrainNodeRequest(node_id="v0", reason="repairs"))
        message = await until(stream, lambda each: any(n.drain_reason for n in each.nodes))
        [node] = message.nodes
        assert (node.node_id, node.drain_reason) == ("v0", "repairs")
        assert node.status is NodeStatus.NODE_STATUS_DRAINING
        for job_id in (second, first):
            await client.call("CancelJob", CancelJobRequest(job_id=job_id))
            await client.end(job_id)


async def test_who_asks_for_jobs_alone_is_told_of_nothing_else(tmp_path: Path) -> None:
    watcher = JobsWatcher()
    async with running(tmp_path) as (_, client), watching(client, watcher) as stream:
        await until_synced(stream)
        job_id = await client.submit(PRINTS)
        await until(stream, has(job_id, "COMPLETED"))
    assert not any(each.nodes or each.HasField("queue") for each in watcher.messages)


async def test_streams_are_limited_together_and_leave_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, max_watches=2) as (coordinator, client):
        watchers = [JobsWatcher() for _ in range(3)]
        async with (
            watching(client, watchers[0]) as first,
            watching(client, watchers[1]) as second,
        ):
            await until_synced(first)
            await until_synced(second)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async with watching(client, watchers[2]) as third:
                    await until_synced(third)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "max_watches" in str(caught.value.details())
        async with asyncio.timeout(PATIENCE):
            while len(coordinator.job_events):  # noqa: ASYNC110  # the events tell nobody
                await asyncio.sleep(0.01)


async def test_what_was_stored_is_told_after_a_kill(tmp_path: Path) -> None:
    """Killed at moments when jobs change all the time; the watcher never starts again."""
    drive = tmp_path / "drive"
    watcher = JobsWatcher()
    jobs: list[str] = []
    seen: dict[str, int] = {}
    for life in range(3):
        async with (
            coordinator_process(tmp_path) as process,
            client_of(process.port, drive) as client,
            watching(client, watcher) as stream,
        ):
            await until_synced(stream)
            for job_id, revision in seen.items():
                assert watcher.jobs[job_id].revision >= revision
            assert known(watcher).keys() == (await listed(client)).keys()
            if life == 2:
                for job_id in jobs:
                    await client.call("CancelJob", CancelJobRequest(job_id=job_id))
                    await client.end(job_id)
                # The jobs that nobody waited for change meanwhile: what differs is on its way.
                while known(watcher) != await listed(client):
                    await until(stream, lambda _: True)
                await process.stop(signal.SIGTERM)
                break
            environment = {"environment": {"UP_TO": "100000"}}
            jobs.append(await client.submit(COUNTS, training_config=environment))
            await until(stream, has(jobs[-1], "TRAINING"))
            # What is submitted last is not waited for.
            client.write("train.py", PRINTS)
            await client.call("SubmitJob", submission())
            await process.stop(signal.SIGKILL)
            seen = {job_id: job.revision for job_id, job in watcher.jobs.items()}
    assert watcher.resets == 1


async def test_a_stream_that_is_passed_by_the_record_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "KEPT_CHANGES", 0)
    async with running(tmp_path) as (coordinator, client):
        fill(coordinator, 20_000)
        call = client.stub.WatchJobs(WatchJobsRequest(), metadata=client.metadata)
        stream = aiter(call)
        await anext(stream)
        store = coordinator.controller._store
        delete(store, record("job-000001", "local"), now=1)
        delete(store, record("job-000002", "local"), now=2 * record_module.KEPT_FOR)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stream:
                pass
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "open it again" in str(caught.value.details())


async def test_who_leaves_while_a_message_is_on_its_way_is_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(tmp_path) as (coordinator, client):
        fill(coordinator, 3000, padding=8 * 1024)
        pages = count_pages(coordinator)
        for _ in range(5):
            async with (
                client_of(coordinator.port, client.drive) as other,
                watching(other, JobsWatcher()) as stream,
            ):
                await anext(stream)
                read = 0
                while read != pages.total():
                    # It goes on until the connection takes no more.
                    read = pages.total()
                    await asyncio.sleep(0.1)
        async with asyncio.timeout(PATIENCE):
            while len(coordinator.job_events):  # noqa: ASYNC110  # the events tell nobody
                await asyncio.sleep(0.01)
    assert "call_failed" not in capsys.readouterr().out
