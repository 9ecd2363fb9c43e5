"""A log of very many lines, downloaded through a gateway that keeps next to none of it."""

import asyncio
import hashlib
import logging
import os
import time
import zlib
from collections.abc import AsyncIterator, Iterator

import orjson
import pytest

from generated.mindcoordinator.v1 import jobs_pb2, watch_pb2
from tests.hub.conftest import gateway_to
from tests.hub.downloads import head_of
from tests.hub.log_coordinator import JOB, Context, LogCoordinator

log = logging.getLogger(__name__)

#: Ten million once in a while: MANY_LINES=10000000 python -m pytest --all
#: --log-cli-level=INFO, with this file.
LINES = int(os.environ.get("MANY_LINES", "1000000"))


def message(offset: int) -> str:
    return f"step {offset} loss {1 / offset:.6f} and so on"


class LongLog(LogCoordinator):
    """Makes its entries when they are asked for."""

    async def ListJobLogs(
        self, request: watch_pb2.ListJobLogsRequest, context: Context
    ) -> watch_pb2.ListJobLogsResponse:
        after = request.after.offset
        upto = min(after + (request.page_size or 1000), request.through_offset or LINES)
        return watch_pb2.ListJobLogsResponse(
            epoch="e1",
            entries=[self.entry(offset) for offset in range(after + 1, upto + 1)],
            next_after_offset=upto,
            first_offset=1,
            last_offset=LINES,
            complete=True,
        )

    @staticmethod
    def entry(offset: int) -> watch_pb2.LogEntry:
        return watch_pb2.LogEntry(
            offset=offset, level=watch_pb2.LOG_LEVEL_INFO, message=message(offset)
        )

    async def watched(
        self, _: watch_pb2.WatchJobRequest, __: Context
    ) -> AsyncIterator[watch_pb2.WatchJobResponse]:
        start = watch_pb2.WatchStart(
            epoch="e1", after_offset=LINES - 100, first_offset=1, last_offset=LINES
        )
        yield watch_pb2.WatchJobResponse(start=start)
        yield watch_pb2.WatchJobResponse(
            logs=[self.entry(offset) for offset in range(LINES - 99, LINES + 1)],
            end=watch_pb2.WatchEnd(status=jobs_pb2.JOB_STATUS_COMPLETED, last_offset=LINES),
        )


async def chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The body; fails unless it has its last chunk."""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.read() == b"\r\n"


def peak_memory() -> Iterator[int]:
    """The most memory that this process had so far, in bytes, each time that it is asked for."""
    while True:
        with open("/proc/self/status", encoding="ascii") as status:
            [line] = [each for each in status if each.startswith("VmHWM")]
        yield int(line.split()[1]) * 1024


@pytest.mark.parametrize(
    ("form", "packed"),
    [
        ("text", False),
        ("ndjson", True),
        pytest.param("text", True, marks=pytest.mark.slow),
        pytest.param("ndjson", False, marks=pytest.mark.slow),
    ],
)
async def test_a_log_of_a_million_lines_arrives_whole(form: str, packed: bool) -> None:
    expected = hashlib.sha256()
    for offset in range(1, LINES + 1):
        expected.update(message(offset).encode())
    found, count, size = hashlib.sha256(), 0, 0
    memory = peak_memory()
    async with LongLog() as coordinator, gateway_to(coordinator.address) as gateway:  # type: ignore[abstract]
        coordinator.jobs[JOB]
        coordinator.stand_in = coordinator.watched
        assert gateway.server.port is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.server.port)
        path = f"/jobs/{JOB}/logs?format={form}&follow=false&from=1"
        headers = {"Accept-Encoding": "gzip"} if packed else {}
        began, before = time.monotonic(), next(memory)
        writer.write(head_of(path, headers=headers))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        unpacker, rest = zlib.decompressobj(31) if packed else None, b""
        async for chunk in chunks(reader):
            size += len(chunk)
            data = chunk if unpacker is None else unpacker.decompress(chunk)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if form == "ndjson":
                    told = orjson.loads(line)
                    if "event" in told:
                        # Nothing may come for a while on a busy machine.
                        assert told["event"] == "bookmark" or told["last_id"] == f"e1:{LINES}"
                        continue
                    line = told["message"].encode()
                count += 1
                found.update(line)
        writer.close()
        took = time.monotonic() - began
    assert rest == b""
    assert unpacker is None or unpacker.eof
    assert (count, found.digest()) == (LINES, expected.digest())
    grown = next(memory) - before
    log.info(
        "%s%s: %d lines, %d MB in %.1f s with the coordinator in the same process, which grew by "
        "%d MB",
        *(form, " in gzip" if packed else "", LINES, size / 1e6, took, grown / 1e6),
    )
    # Whatever the number of lines: less than a hundredth of the log.
    assert grown < 64 * 1024 * 1024
