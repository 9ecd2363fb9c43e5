"""Pages of logs are converted in slices: what is live does not wait for whole pages."""

import asyncio

import grpc
import pytest

from app.bridge.client import CoordinatorClient
from app.bridge.settings import UpstreamSettings
from app.bridge.streams import watch_job
from app.bridge.streams.watch_job import WatchClient
from app.hub.upstream import LogRecord
from generated.mindcoordinator.v1.watch_pb2 import LOG_LEVEL_INFO, LogEntry


async def test_in_no_turn_of_the_loop_more_than_a_slice_is_converted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    converted = 0
    convert = watch_job._record

    def counted(entry: LogEntry) -> LogRecord:
        nonlocal converted
        converted += 1
        return convert(entry)

    monkeypatch.setattr(watch_job, "_record", counted)
    entries = [LogEntry(offset=n + 1, level=LOG_LEVEL_INFO, message="m") for n in range(1_000)]
    settings = UpstreamSettings(api_secret="s")
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        client = WatchClient(
            channel=channel,
            client=CoordinatorClient(channel=channel, settings=settings, observe=print),
            settings=settings,
            observe=print,
        )
        pages = [asyncio.create_task(client._records(entries)) for _ in range(20)]
        most = before = 0
        while not all(page.done() for page in pages):
            await asyncio.sleep(0)
            most, before = max(most, converted - before), converted
    assert converted == 20 * len(entries)
    assert most <= client.SLICE
    for page in pages:
        assert [record.offset for record in page.result()] == list(range(1, 1_001))
