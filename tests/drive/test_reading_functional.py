"""Reading files: ranges, conditional requests, what a browser is told, connections."""

import asyncio
import os
import time
from email.utils import formatdate

import pytest

from app.api.drive.answers import stored_data
from app.drive.paths import DrivePath
from app.drive.versions import Version
from tests.drive.conftest import Served
from tests.replicas import Answer

CONTENT = bytes(range(256)) * 4


@pytest.fixture
async def tag(served: Served) -> str:
    """The entity tag of the file `a`."""
    return str((await served.acme.put("a", CONTENT)).headers["ETag"])


PARTS = [
    ("bytes=0-0", 0, 1),
    ("bytes=0-9", 0, 10),
    ("bytes=1000-", 1000, 1024),
    ("bytes=1000-9999", 1000, 1024),
    ("bytes=-24", 1000, 1024),
    ("bytes=-9999", 0, 1024),
    ("Bytes=5-5", 5, 6),
    ("bytes= 5-6", 5, 7),
]


async def test_a_range_is_a_part(served: Served, tag: str) -> None:
    for wanted, start, stop in PARTS:
        answer = await served.acme.get("a", headers={"Range": wanted})
        assert answer.status == 206
        assert answer.body == CONTENT[start:stop]
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/1024"
        assert answer.headers["Content-Length"] == str(stop - start)
        assert answer.headers["ETag"] == tag


BEHIND = ["bytes=1024-", "bytes=5000-6000", "bytes=-0"]


async def test_a_range_behind_the_end_is_refused(served: Served, tag: str) -> None:
    for wanted in BEHIND:
        answer = await served.acme.get("a", headers={"Range": wanted})
        assert (answer.status, answer.code) == (416, "RANGE_NOT_SATISFIABLE")
        assert answer.headers["Content-Range"] == "bytes */1024"


NO_RANGES = [
    "bytes=9-5",
    "bytes=0-1,5-6",
    "lines=1-2",
    "bytes=-",
    "bytes= -",
    "bytes=\t-",
    "bytes=a-b",
    "bytes=" + "9" * 30 + "-",
]


async def test_a_range_that_is_none_is_not_heeded(served: Served, tag: str) -> None:
    for wanted in NO_RANGES:
        answer = await served.acme.get("a", headers={"Range": wanted})
        assert (answer.status, answer.body) == (200, CONTENT)


async def test_a_range_of_an_empty_file_is_refused(served: Served) -> None:
    await served.acme.put("empty")
    for wanted in ("bytes=0-", "bytes=-5"):
        assert (await served.acme.get("empty", headers={"Range": wanted})).status == 416


async def test_head_knows_no_range(served: Served, tag: str) -> None:
    answer = await served.acme.head("a", headers={"Range": "bytes=0-9"})
    assert (answer.status, answer.headers["Content-Length"]) == (200, "1024")


async def test_a_part_is_only_of_the_version_that_the_client_has(served: Served, tag: str) -> None:
    async def part(if_range: str) -> Answer:
        return await served.acme.get("a", headers={"Range": "bytes=9-", "If-Range": if_range})

    modified = (await served.acme.head("a")).headers["Last-Modified"]
    for same in (tag, modified):
        assert (await part(same)).status == 206
    for other in ('"other"', f"W/{tag}", formatdate(time.time() + 99, usegmt=True), "nonsense"):
        answer = await part(other)
        assert (answer.status, answer.body) == (200, CONTENT)


async def test_conditions_are_heeded_in_the_order_of_the_standard(served: Served, tag: str) -> None:
    async def status(**headers: str) -> int:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return (await served.acme.get("a", headers=sent)).status

    modified = (await served.acme.head("a")).headers["Last-Modified"]
    before = formatdate(time.time() - 999, usegmt=True)
    assert await status(If_None_Match=tag) == 304
    assert await status(If_None_Match=f'"x", W/{tag}') == 304
    assert await status(If_None_Match="*") == 304
    assert await status(If_None_Match='"x"') == 200
    assert await status(If_None_Match='"x"', If_Modified_Since=modified) == 200
    assert await status(If_Modified_Since=modified) == 304
    assert await status(If_Modified_Since=before) == 200
    assert await status(If_Modified_Since="nonsense") == 200
    assert await status(If_Match=tag) == 200
    assert await status(If_Match="*") == 200
    assert await status(If_Match='"x"') == 412
    assert await status(If_Match=f"W/{tag}") == 412
    assert await status(If_Match=tag, If_Unmodified_Since=before) == 200
    assert await status(If_Unmodified_Since=before) == 412
    assert await status(If_Unmodified_Since=modified) == 200
    assert await status(If_None_Match=tag, Range="bytes=0-1") == 304
    assert await status(If_Match="no tag") == 400


async def test_a_writer_says_what_it_expects(served: Served, tag: str) -> None:
    acme = served.acme
    absent = {"If-None-Match": "*"}
    assert (await acme.put("a", b"x", headers=absent)).code == "PRECONDITION_FAILED"
    assert (await acme.put("new", b"x", headers=absent)).status == 201
    assert (await acme.put("a", b"x", headers={"If-Match": '"other"'})).status == 412
    assert (await acme.put("none", b"x", headers={"If-Match": "*"})).status == 412
    assert (await acme.get("a")).body == CONTENT
    assert (await acme.put("a", b"y", headers={"If-Match": tag})).status == 200
    assert (await acme.delete("a", headers={"If-Match": tag})).status == 412
    now = (await acme.head("a")).headers["ETag"]
    assert (await acme.delete("a", headers={"If-Match": now})).status == 204


async def test_of_writers_that_expect_the_same_one_succeeds(served: Served, tag: str) -> None:
    answers = await asyncio.gather(
        *(served.acme.put("a", b"%d" % n, headers={"If-Match": tag}) for n in range(8)),
        *(served.acme.put("b", b"%d" % n, headers={"If-None-Match": "*"}) for n in range(8)),
    )
    assert sorted(each.status for each in answers[:8]) == [200] + [412] * 7
    assert sorted(each.status for each in answers[8:]) == [201] + [412] * 7


ENDINGS = [
    ("page.html", None),
    ("page.xhtml", None),
    ("drawing.svg", None),
    ("worker.js", None),
    ("style.css", None),
    ("paper.pdf", None),
    ("data.xml", None),
    ("no-ending", None),
    ("picture.PNG", "image/png"),
    ("loss.json", "application/json"),
    ("train.py", "text/plain; charset=utf-8"),
    ("run.log", "text/plain; charset=utf-8"),
]


async def test_a_browser_runs_nothing(served: Served) -> None:
    for name, inline in ENDINGS:
        await served.acme.put(name, b"<script>alert(1)</script>")
        for query, shown in (("", None), ("?inline=1", inline)):
            for answer in (
                await served.acme.get(name + query),
                await served.acme.head(name + query),
            ):
                headers = answer.headers
                assert headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
                assert headers["X-Content-Type-Options"] == "nosniff"
                assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
                assert headers["Content-Type"] == (shown or "application/octet-stream")
                kind = headers["Content-Disposition"].partition(";")[0]
                assert kind == ("inline" if shown else "attachment")


async def test_a_name_ends_no_header(served: Served) -> None:
    name = 'a"; x\r\nSet-Cookie: b=c; é'
    served.folder.mkdir()
    (served.folder / name).write_bytes(b"1")
    answer = await served.acme.get("a%22%3B%20x%0D%0ASet-Cookie%3A%20b%3Dc%3B%20%C3%A9")
    assert answer.body == b"1"
    assert "Set-Cookie" not in answer.headers
    assert answer.headers["Content-Disposition"] == (
        'attachment; filename="a__ x__Set-Cookie_ b_c_ _"; '
        "filename*=UTF-8''a%22%3B%20x%0D%0ASet-Cookie%3A%20b%3Dc%3B%20%C3%A9"
    )


async def test_times_that_no_header_can_have_are_told_all_the_same(served: Served) -> None:
    await served.acme.put("a", b"1")
    for moment in (2**40, -(2**33), 2**33):
        os.utime(served.folder / "a", (moment, moment))
        answer = await served.acme.get("a")
        assert answer.status == 200
        [entry] = (await served.acme.get("")).data["entries"]
        assert (await served.acme.get("a", headers={"If-None-Match": entry["etag"]})).status == 304


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (2**40, None),
        (-(2**40), None),
        (2**33, "2242-03-16T12:56:32.000000Z"),
        (-(2**33), "1697-10-17T11:03:28.000000Z"),
    ],
)
def test_times_that_no_calendar_has_are_null(seconds: int, told: str | None) -> None:
    # Few file systems have such times.
    version = Version(1, seconds * 10**9, '"tag"')
    assert stored_data("acme", DrivePath.of("a"), version)["modified_at"] == told


async def test_a_connection_serves_file_after_file(served: Served) -> None:
    large = os.urandom(3_000_000)
    await served.acme.put("large", large)
    port = served.gateway.server.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = (
        f"GET /v1/drive/large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.acme.token}\r\n"
        "\r\n"
    )
    # The second request is there before the first file has been sent.
    writer.write((request * 2).encode())
    for _ in range(2):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert await reader.readexactly(len(large)) == large
    writer.close()
    await writer.wait_closed()
