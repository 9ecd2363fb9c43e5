"""WatchJob and ListJobLogs keep the promises of the contract."""

import asyncio
from pathlib import Path

import grpc
import pytest

from app.coordinator.logs import log as logs
from app.coordinator.storage.job_directory import JobDir
from generated.mindcoordinator.v1.jobs_pb2 import CancelJobRequest
from generated.mindcoordinator.v1.watch_pb2 import (
    ListJobLogsRequest,
    LogLevel,
    LogPosition,
    WatchJobResponse,
)
from tests.coordinator.harness import Client, running
from tests.coordinator.scripts import WAITS

PRINTS = """
    import sys
    for n in range(2500):
        print(("ERROR: " if n % 100 == 0 else "") + str(n))
"""


async def all_of(client: Client, job_id: str, **request: object) -> list[WatchJobResponse]:
    async with asyncio.timeout(60):
        return [message async for message in client.watch(job_id, **request)]  # type: ignore[arg-type]  # passed on as they are


async def test_a_stream_from_start_to_end(tmp_path: Path) -> None:
    async with running(tmp_path) as (coordinator, client):
        job_id = await client.submit(PRINTS)
        live = await all_of(client, job_id)
        again = await all_of(client, job_id)
        for messages in (live, again):
            assert messages[0].HasField("start")
            assert not any(message.HasField("start") for message in messages[1:])
            assert messages[-1].HasField("end")
            assert not any(message.HasField("end") for message in messages[:-1])
            offsets = [entry.offset for message in messages for entry in message.logs]
            assert offsets == list(range(1, len(offsets) + 1))
            assert messages[-1].end.last_offset == offsets[-1]
            assert max(len(message.logs) for message in messages) <= 1000
        changes = [change for message in live for change in message.status_changes]
        assert changes[-1].status == live[-1].end.status
        assert len(coordinator.job_events) == 0


async def test_going_on_behind_a_place(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(PRINTS)
        start = (await all_of(client, job_id))[0].start
        place = LogPosition(epoch=start.epoch, offset=2400)
        messages = await all_of(client, job_id, after=place)
        assert messages[0].start.after_offset == 2400
        assert next(e.offset for m in messages for e in m.logs) == 2401
        last = messages[-1].end.last_offset
        messages = await all_of(client, job_id, after=LogPosition(epoch=start.epoch, offset=last))
        assert [e for m in messages for e in m.logs] == []
        for unknown in (
            LogPosition(epoch="unknown", offset=5),
            LogPosition(epoch=start.epoch, offset=last + 1),
        ):
            messages = await all_of(client, job_id, after=unknown, tail=3)
            assert messages[0].start.after_offset == last - 3
            assert [e.offset for m in messages for e in m.logs] == [last - 2, last - 1, last]


async def test_a_watcher_that_goes_away_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as (coordinator, client):
        job_id = await client.submit(WAITS)
        watchers = [client.watch(job_id) for _ in range(20)]
        for watcher in watchers:
            await anext(watcher)
        await client.until_line(job_id, "ready")
        for watcher in watchers:
            await watcher.aclose()  # type: ignore[attr-defined]  # it is a generator
        async with asyncio.timeout(60):
            while len(coordinator.job_events):  # noqa: ASYNC110  # the events tell nobody
                await asyncio.sleep(0.01)
        await client.call("CancelJob", CancelJobRequest(job_id=job_id))
        await client.end(job_id)


async def test_pages_of_a_log(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(PRINTS)
        await client.end(job_id)

        async def page(**request: object) -> tuple[list[str], int, bool]:
            answer = await client.call(
                "ListJobLogs",
                ListJobLogsRequest(job_id=job_id, **request),  # type: ignore[arg-type]  # passed on as they are
            )
            return (
                [entry.message for entry in answer.entries],
                answer.next_after_offset,
                answer.complete,
            )

        everything = await client.log(job_id)
        epoch = (await all_of(client, job_id, tail=0))[0].start.epoch
        errors = [e.message for e in everything if e.level == LogLevel.LOG_LEVEL_ERROR]
        assert len(errors) == 25
        assert (await page(tail=3, min_level=4))[0] == errors[-3:]
        first, after, complete = await page(
            after=LogPosition(epoch=epoch), min_level=4, page_size=10
        )
        assert complete
        assert first == errors[:10]
        rest, after, _ = await page(after=LogPosition(epoch=epoch, offset=after), min_level=4)
        assert rest == errors[10:]
        assert after == len(everything)
        assert (await page(tail=2, through_offset=10))[0] == [
            entry.message for entry in everything[8:10]
        ]
        assert len((await page(tail=5000))[0]) == 1000
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await page(after=LogPosition(epoch="unknown", offset=1))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def damage(path: Path) -> None:
    """Overwrite 300 bytes in the middle of a log, and its last 300."""
    content = path.read_bytes()
    for at in (content.index(b"1500"), len(content) - 300):
        content = content[:at] + b"\xff" * 300 + content[at + 300 :]
    path.write_bytes(content)


async def test_a_damaged_log_is_watched_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit(PRINTS)
        whole = await client.log(job_id)
        path = Path(logs.entries_path(JobDir(tmp_path / "jobs" / job_id).log))
        damage(path)
        for _ in range(2):
            messages = await all_of(client, job_id)
            offsets = [entry.offset for message in messages for entry in message.logs]
            assert offsets == sorted(set(offsets))
            assert len(whole) - 40 < len(offsets) < len(whole) - 6
            assert messages[-1].end.last_offset == len(whole)
        # Who comes back behind the last good line learns that nothing follows it.
        place = LogPosition(epoch=messages[0].start.epoch, offset=offsets[-1])
        messages = await all_of(client, job_id, after=place)
        assert messages[0].start.after_offset == len(whole)
        assert messages[-1].end.last_offset == len(whole)
        out, err = capsys.readouterr()
        assert (out + err).count("journal_damaged") == 1
