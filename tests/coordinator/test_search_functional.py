"""SearchJobLogs over a real coordinator: a process for each search, bounded and ended."""

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from random import Random

import grpc.aio
import psutil
import pytest

from app.coordinator.errors import Overloaded, Unavailable
from app.coordinator.isolation.system_paths import system_paths
from app.coordinator.logs import log as logs
from app.coordinator.logs.log import LogWriter
from app.coordinator.service.logs.search import WORKER, LogSearches
from app.coordinator.storage.job_directory import JobDir
from app.log_filter import JUDGED_BYTES
from generated.mindcoordinator.v1.logs_pb2 import (
    SearchEnd,
    SearchJobLogsRequest,
    SearchJobLogsResponse,
)
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogFilter, LogLevel
from tests.coordinator.harness import PATIENCE, Client, client_of, running
from tests.processes import command_line, lives

INFO = LogLevel.LOG_LEVEL_INFO
#: It takes some 100 ms for a line of SLOW_LINE, and finds nothing.
SLOW = LogFilter(matches="^[ab]*a[ab]{900}c")
SLOW_LINE = "".join(Random(1).choices("ab", k=JUDGED_BYTES))


def append(path: Path, messages: list[str]) -> None:
    logs.create(path)
    writer = LogWriter(path)
    writer.append([LogEntry(level=INFO, message=message) for message in messages])
    writer.close()


def workers() -> list[psutil.Process]:
    """The first processes of searches that live."""
    return [
        process
        for process in psutil.Process().children()
        if lives(process) and WORKER in command_line(process)
    ]


async def search(client: Client, **request: object) -> list[SearchJobLogsResponse]:
    call = client.stub.SearchJobLogs(
        SearchJobLogsRequest(**request),  # type: ignore[arg-type]  # passed on as they are
        metadata=client.metadata,
    )
    async with asyncio.timeout(PATIENCE):
        return [message async for message in call]


async def test_a_search_finds_what_the_log_has_from_its_end(tmp_path: Path) -> None:
    async with running(tmp_path) as (coordinator, client):
        job_id = await client.submit("for n in range(100): print('Step', n)")
        await client.end(job_id)
        lines = await client.log(job_id)
        messages = await search(client, job_id=job_id, filter=LogFilter(contains="STEP 1"))
        found = [match for message in messages for match in message.matches]
        assert [match.entry for match in found] == [
            line for line in reversed(lines) if line.message.startswith("Step 1")
        ]
        assert {(span.start, span.end) for match in found for span in match.spans} == {(0, 6)}
        assert [message.end for message in messages if message.end] == [
            SearchEnd.SEARCH_END_EXHAUSTED
        ]
        assert messages[-1].end
        assert messages[-1].scanned_to == 1
        (*_, end) = await search(
            client, job_id=job_id, filter=LogFilter(contains="step"), limit=7, before_offset=50
        )
        assert (end.end, end.match_count, end.scanned_to) == (SearchEnd.SEARCH_END_LIMIT, 7, 43)
        (end,) = await search(client, job_id=job_id, before_offset=1)
        assert end.end == SearchEnd.SEARCH_END_EXHAUSTED
        wrongs: tuple[dict[str, object], ...] = (
            {"limit": 1001},
            {"limit": -1},
            {"before_offset": -1},
            {"filter": LogFilter(matches="(")},
        )
        for wrong in wrongs:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await search(client, job_id=job_id, **wrong)
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert next(iter(wrong)) in (refused.value.details() or "")
        async with client_of(coordinator.port, client.drive, "other") as other:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await search(other, job_id=job_id, filter=LogFilter(contains="step"))
            assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_search_ends_when_its_client_leaves(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit("print('x')")
        await client.end(job_id)
        append(tmp_path / "jobs" / job_id / "log", [SLOW_LINE] * 1000)
        call = client.stub.SearchJobLogs(
            SearchJobLogsRequest(job_id=job_id, filter=SLOW), metadata=client.metadata
        )
        told = 0
        async with asyncio.timeout(PATIENCE):
            async for message in call:
                assert not message.end
                told += 1
                if 0 < message.scanned_to < 1000 and told > 5:
                    break
        (worker,) = workers()
        family = [worker, *worker.children(recursive=True)]
        assert family[-1].nice() >= 10
        call.cancel()
        gone, alive = await asyncio.to_thread(psutil.wait_procs, family, PATIENCE)
        assert (len(gone), alive) == (2, [])


async def until_end(stream: AsyncIterator[SearchJobLogsResponse]) -> SearchJobLogsResponse:
    async with asyncio.timeout(PATIENCE):
        (*_, end) = [message async for message in stream]
    return end


@pytest.fixture
async def searches(tmp_path: Path) -> AsyncIterator[LogSearches]:
    append(tmp_path / "log", [SLOW_LINE] * 1000)
    searches = LogSearches(searches=4, readable=system_paths([tmp_path]))
    yield searches
    await searches.close()
    assert workers() == []


async def test_so_many_search_at_once_and_no_tenant_alone(
    searches: LogSearches, tmp_path: Path
) -> None:
    request = SearchJobLogsRequest(filter=SLOW)
    directory = JobDir(tmp_path)

    async def begun(tenant: str) -> bool:
        stream = searches.search(tenant, directory, request)
        streams.append(stream)
        try:
            await anext(stream)
        except Overloaded:
            return False
        return True

    streams: list[AsyncGenerator[SearchJobLogsResponse]] = []
    assert [await begun(tenant) for tenant in ("a", "a", "a", "b", "b", "c")] == [
        *(True, True, False, True, True),
        False,
    ]
    await streams[0].aclose()
    assert await begun("c")
    for stream in streams:
        await stream.aclose()


async def test_a_search_whose_messages_nobody_takes_ends(
    searches: LogSearches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.coordinator.service.logs.search._PATIENCE", 0.5)
    monkeypatch.setattr("app.coordinator.service.logs.search._MAX_SECONDS", 0.5)
    # The process comes to its end by then, and has more to say than can wait.
    monkeypatch.setattr("app.coordinator.service.logs.search._WAITING", 1)
    stream = searches.search("a", JobDir(tmp_path), SearchJobLogsRequest(filter=SLOW))
    await anext(stream)
    (work,) = searches._works
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait((work,))
    assert workers() == []
    assert (await until_end(stream)).end == SearchEnd.SEARCH_END_BUDGET


async def test_no_search_outlives_its_coordinator(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        job_id = await client.submit("print('x')")
        await client.end(job_id)
        append(tmp_path / "jobs" / job_id / "log", [SLOW_LINE] * 1000)
        call = client.stub.SearchJobLogs(
            SearchJobLogsRequest(job_id=job_id, filter=SLOW), metadata=client.metadata
        )
        async with asyncio.timeout(PATIENCE):
            async for message in call:
                if 0 < message.scanned_to < 1000:
                    break
    assert workers() == []


async def test_a_search_whose_process_dies_says_where_to_go_on(
    searches: LogSearches, tmp_path: Path
) -> None:
    stream = searches.search("a", JobDir(tmp_path), SearchJobLogsRequest(filter=SLOW))
    async with aclosing(stream):
        while (await anext(stream)).scanned_to > 1000:
            pass
        (worker,) = workers()
        for process in worker.children():
            process.kill()
        with pytest.raises(Unavailable, match="from the last scanned_to on"):
            await until_end(stream)


async def test_a_log_that_changes_is_searched_as_far_as_it_is_there(
    searches: LogSearches, tmp_path: Path
) -> None:
    append(tmp_path / "log", ["needle", *["more"] * 1000])
    request = SearchJobLogsRequest(filter=LogFilter(contains="needle"))
    stream = searches.search("a", JobDir(tmp_path), request)
    async with aclosing(stream):
        await anext(stream)
        append(tmp_path / "log", ["needle"])
        end = await until_end(stream)
    assert (end.end, end.match_count) == (SearchEnd.SEARCH_END_EXHAUSTED, 1)
    stream = searches.search("a", JobDir(tmp_path), request)
    async with aclosing(stream):
        await anext(stream)
        size = (tmp_path / "log" / "entries").stat().st_size
        os.truncate(tmp_path / "log" / "entries", size // 2)
        end = await until_end(stream)
    assert (end.end, end.match_count) == (SearchEnd.SEARCH_END_EXHAUSTED, 0)
    shutil.rmtree(tmp_path / "log")
    with pytest.raises(FileNotFoundError):
        await anext(searches.search("a", JobDir(tmp_path), request))
