"""A log as text and as NDJSON: the same entries, and an end that can be trusted."""

import asyncio
from typing import Any
from urllib.parse import unquote

import grpc
import pytest

from generated.mindcoordinator.v1 import watch_pb2
from tests.hub.conftest import Gateway, GatewayMaker
from tests.hub.downloads import Download, download, head_of, parsed
from tests.hub.log_coordinator import JOB, LogCoordinator
from tests.programs import program

KiB = 1024


async def get(
    gateway: Gateway,
    *,
    job: str = JOB,
    headers: dict[str, str] | None = None,
    http: str = "1.1",
    **query: Any,
) -> Download:
    query = {name.rstrip("_"): value for name, value in query.items()}
    arguments = "&".join(f"{name}={value}" for name, value in query.items())
    assert gateway.server.port is not None
    return await download(
        ("127.0.0.1", gateway.server.port),
        f"/jobs/{job}/logs?{arguments}",
        headers=headers,
        http=http,
    )


def numbers(start: int, stop: int) -> list[str]:
    return [f"line {number}" for number in range(start, stop)]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("http", ["1.1", "1.0"])
async def test_a_whole_log_as_text_is_its_lines(
    make_gateway: GatewayMaker, coordinator: LogCoordinator, http: str, packed: bool
) -> None:
    gateway = await make_gateway(history_bytes=64 * KiB, history_tail=10)
    await coordinator.log(*numbers(1, 3001))
    headers = {"Accept-Encoding": "br, gzip;q=0.5"} if packed else {}
    got = await get(gateway, format="text", follow="false", from_=1, headers=headers, http=http)
    assert got.status == 200
    assert got.complete
    assert got.lines == numbers(1, 3001)
    assert got.headers["content-type"] == "text/plain; charset=utf-8"
    assert got.headers["content-disposition"] == f'attachment; filename="{JOB}.log"'
    assert got.headers["vary"] == "Accept, Accept-Encoding"
    assert got.headers.get("content-encoding") == ("gzip" if packed else None)
    assert (len(got.packed) < len(got.body) / 3) is packed


@pytest.mark.parametrize("packed", [True, False])
async def test_a_whole_log_as_ndjson_has_ids_and_an_end(
    make_gateway: GatewayMaker, coordinator: LogCoordinator, packed: bool
) -> None:
    gateway = await make_gateway(history_bytes=64 * KiB, history_tail=10)
    await coordinator.log(*numbers(1, 2501))
    await coordinator.end()
    headers = {"Accept": "application/x-ndjson"}
    if packed:
        headers["Accept-Encoding"] = "gzip"
    got = await get(gateway, follow="false", from_=1, headers=headers)
    assert got.complete
    assert got.headers["content-type"] == "application/x-ndjson"
    *entries, end = got.objects
    assert [each["message"] for each in entries] == numbers(1, 2501)
    assert [(each["id"], each["offset"]) for each in entries[:2]] == [("e1:1", 1), ("e1:2", 2)]
    assert end == {"id": "e1:2500", "event": "end", "status": "COMPLETED", "last_id": "e1:2500"}

    going_on = await get(gateway, follow="false", from_=2499, headers=headers)
    assert [each.get("offset") for each in going_on.objects] == [2499, 2500, None]
    nothing = await get(gateway, follow="false", from_=2501, headers=headers)
    assert [each["event"] for each in nothing.objects] == ["end"]
    beyond = await get(gateway, follow="false", from_=2600, headers=headers)
    gap, end = beyond.objects
    assert (gap["event"], gap["from"], gap["to"]) == ("gap", "e1:2600", None)
    assert (gap["reason"], end["event"]) == ("future_offset", "end")


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        ({}, {}, "text/event-stream"),
        ({"Accept": "*/*"}, {}, "text/event-stream"),
        ({"Accept": "text/html"}, {}, "text/event-stream"),
        ({"Accept": "image/png"}, {}, "text/event-stream"),
        ({"Accept": "text/*"}, {}, "text/event-stream"),
        ({"Accept": "application/json, text/plain, */*"}, {}, "text/event-stream"),
        ({"Accept": "text/plain"}, {}, "text/plain"),
        ({"Accept": "TEXT/Plain;q=0.3"}, {}, "text/plain"),
        ({"Accept": "text/plain, */*;q=0.1"}, {}, "text/plain"),
        ({"Accept": "text/plain;q=0"}, {}, "text/event-stream"),
        ({"Accept": "text/plain;q=2x"}, {}, "text/event-stream"),
        ({"Accept": "application/x-ndjson"}, {}, "application/x-ndjson"),
        ({"Accept": "text/plain;q=0.5, application/jsonl"}, {}, "application/x-ndjson"),
        ({"Accept": "text/plain"}, {"format": "sse"}, "text/event-stream"),
        ({"Accept": "text/event-stream"}, {"format": "ndjson"}, "application/x-ndjson"),
    ],
)
async def test_the_form_is_that_of_the_query_or_else_of_accept(
    gateway: Gateway,
    coordinator: LogCoordinator,
    headers: dict[str, str],
    query: dict[str, str],
    expected: str,
) -> None:
    await coordinator.end()
    got = await get(gateway, headers=headers, **query)
    assert got.headers["content-type"].partition(";")[0] == expected
    assert got.headers["vary"] == "Accept, Accept-Encoding"
    # Only a download is an attachment.
    assert "content-disposition" not in got.headers


@pytest.mark.parametrize(
    ("job", "name"),
    [
        ("job-1", "job-1.log"),
        ('a";x="%0d%0a', None),
        ("..%2F..%2Fetc%2Fpasswd", "_etc_passwd.log"),
        ("%E2%80%AEgpj.exe", "_gpj_exe.log"),
        ("x" * 256, "x" * 100 + ".log"),
    ],
)
async def test_the_name_of_a_download_is_made_of_the_id_alone(
    gateway: Gateway, coordinator: LogCoordinator, job: str, name: str | None
) -> None:
    coordinator.jobs[unquote(job)]
    got = await get(gateway, job=job, format="text", follow="false", from_=1)
    if name is None:
        assert got.status == 404
    else:
        assert got.headers["content-disposition"] == f'attachment; filename="{name}"'


async def test_text_is_followed_to_the_end_of_the_job(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    await coordinator.log("one")
    following = asyncio.create_task(get(gateway, format="text"))
    await coordinator.until(watches=1)
    await coordinator.log("two", "three")
    await coordinator.end()
    got = await following
    assert got.complete
    assert got.lines == ["one", "two", "three"]


async def test_text_that_is_followed_over_http_1_0_is_refused(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    got = await get(gateway, format="text", http="1.0")
    assert got.status == 400
    assert b"HTTP/1.0" in got.body
    await coordinator.end()
    assert (await get(gateway, format="ndjson", http="1.0")).status == 200


def with_fields(offset: int, message: str, **more: Any) -> watch_pb2.LogEntry:
    fields = more.pop("fields", {})
    return watch_pb2.LogEntry(
        offset=offset, level=watch_pb2.LOG_LEVEL_INFO, message=message, fields=fields, **more
    )


async def test_pieces_are_joined_to_their_line_whatever_came_in_between(
    gateway: Gateway, coordinator: LogCoordinator
) -> None:
    out, err = {"source": "stdout"}, {"source": "stderr"}
    coordinator.jobs[JOB].entries = [
        with_fields(1, "load", fields={"partial": "true"}, **out),
        with_fields(2, "warning", **err),
        with_fields(3, "ing", fields={"partial": "true", "continues": "1"}, **out),
        with_fields(4, " rank 1", fields={"partial": "true"}, rank=1, **out),
        with_fields(5, " done", fields={"continues": "1"}, **out),
        # Its line ended where its piece did: nothing more came of it.
        with_fields(6, "next of rank 1", rank=1, **out),
        with_fields(7, "unfinished", fields={"partial": "true"}, **out),
    ]
    await coordinator.end()
    got = await get(gateway, format="text", from_=1, follow="false")
    assert got.lines == ["warning", "loading done", " rank 1", "next of rank 1", "unfinished"]
    middle = await get(gateway, format="text", from_=3, follow="false")
    assert middle.lines == ["ing done", " rank 1", "next of rank 1", "unfinished"]


async def test_what_is_missing_is_told_in_each_form(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(history_tail=10)
    await coordinator.log(*numbers(1, 101))
    coordinator.jobs[JOB].first = 20
    coordinator.jobs[JOB].lost = {30, *range(40, 45)}
    await coordinator.end()
    text = await get(gateway, format="text", from_=10, follow="false")
    assert text.complete
    assert text.lines[:2] == ["[scaimind: lines 10 to 19 are missing: dropped]", "line 20"]
    assert "[scaimind: line 30 is missing: missing]" in text.lines
    assert "[scaimind: lines 40 to 44 are missing: missing]" in text.lines
    ndjson = await get(gateway, format="ndjson", from_=10, follow="false")
    gaps = [each for each in ndjson.objects if each.get("event") == "gap"]
    assert [(each["from"], each["to"], each["reason"]) for each in gaps] == [
        ("e1:10", "e1:19", "dropped"),
        ("e1:30", "e1:30", "missing"),
        ("e1:40", "e1:44", "missing"),
    ]


@pytest.mark.parametrize("http", ["1.1", "1.0"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("form", ["text", "ndjson"])
async def test_a_log_that_breaks_off_is_cut(
    make_gateway: GatewayMaker, coordinator: LogCoordinator, form: str, packed: bool, http: str
) -> None:
    gateway = await make_gateway(history_bytes=64 * KiB, history_tail=10, outage_limit=0.1)
    await coordinator.log(*numbers(1, 3001))

    def refuse(method: str, number: int, message: Any) -> Any:
        if method == "ListJobLogs" and message.entries and message.entries[0].offset > 1:
            coordinator.refusals["ListJobLogs"] = (grpc.StatusCode.UNAVAILABLE, "away")
        return message

    coordinator.lie = refuse
    headers = {"Accept-Encoding": "gzip"} if packed else {}
    got = await get(gateway, format=form, from_=1, follow="false", headers=headers, http=http)
    assert got.status == 200
    assert not got.complete
    if http == "1.1" and not packed and form == "ndjson":
        assert got.objects[-1]["event"] == "error"
        assert got.objects[-1]["code"] == "COORDINATOR_UNAVAILABLE"
        assert got.objects[-1]["retryable"] is True
    if http == "1.1" and not packed and form == "text":
        assert got.lines == numbers(1, len(got.lines) + 1)


@pytest.mark.parametrize("form", ["text", "ndjson"])
async def test_a_stream_that_this_replica_ends_is_cut(
    gateway: Gateway, coordinator: LogCoordinator, form: str
) -> None:
    await coordinator.log("one")
    following = asyncio.create_task(get(gateway, format=form))
    await gateway.seen.joined.wait()
    await gateway.hub.close()
    assert not (await following).complete


async def test_a_quiet_ndjson_stream_carries_bookmarks_and_text_nothing(
    make_gateway: GatewayMaker, coordinator: LogCoordinator
) -> None:
    gateway = await make_gateway(keepalive_interval=0.1)
    await coordinator.log("one", "two")
    port = gateway.server.port
    assert port is not None
    following = asyncio.create_task(get(gateway, format="text"))
    await gateway.seen.joined.wait()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head_of(f"/jobs/{JOB}/logs?format=ndjson", headers={}))
    async with asyncio.timeout(60):
        received = await reader.readuntil(b'{"id":"e1:2","event":"bookmark"}\n')
        # Whatever text is sent to keep it alive was sent before.
        received += await reader.readuntil(b'{"id":"e1:2","event":"bookmark"}\n')
    await coordinator.end()
    received += await reader.read()
    writer.close()
    ndjson = parsed(received)
    assert ndjson.complete
    assert ndjson.objects[-1]["event"] == "end"
    assert (await following).lines == ["one", "two"]


@pytest.mark.parametrize(("option", "status"), [("--http1.1", 18), ("--http1.0", 56)])
async def test_curl_reports_a_transfer_that_is_incomplete(
    gateway: Gateway, coordinator: LogCoordinator, option: str, status: int
) -> None:
    await coordinator.log("one")
    form = "text" if option == "--http1.1" else "ndjson"
    url = f"http://127.0.0.1:{gateway.server.port}/jobs/{JOB}/logs?format={form}"
    process = await asyncio.create_subprocess_exec(
        *(program("curl"), "--silent", "--no-buffer", option, url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert b"one" in await process.stdout.readline()
        await gateway.hub.close()
        await process.communicate()
    assert process.returncode == status
