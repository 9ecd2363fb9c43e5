"""A store that is away, refuses or answers nonsense, as callers and operators are told."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

pytest.importorskip("s3fs")

from tests.drive.bucket.conftest import Serve
from tests.objects.buckets import Bucket, FaultyProxy, answer, faulty, write_credentials
from tests.replicas import Answer

SLOW_DOWN = answer("503 Slow Down", "SlowDown")


def unavailable(answer: Answer) -> None:
    """It is a refusal that may pass, and says nothing of the store."""
    assert (answer.status, answer.code) == (503, "DRIVE_UNAVAILABLE")
    assert int(answer.headers["Retry-After"]) > 0
    for said in (b"SlowDown", b"secret", b"AKIA", b"s3://", b"127.0.0.1"):
        assert said not in answer.body


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[FaultyProxy]:
    with faulty(bucket) as found:
        yield found


async def test_a_store_that_is_away_is_told_and_comes_back(
    serve: Serve, proxy: FaultyProxy
) -> None:
    async with serve(port=proxy.port) as served:
        acme = served.acme
        assert (await acme.put("a", b"1")).status == 201
        proxy.fault = lambda _: 0
        unavailable(await acme.get("a"))
        proxy.fault = lambda _: b"HTTP/1.1 502 no\r\ncontent-length: 0\r\n\r\n"
        unavailable(await acme.get(""))
        proxy.fault = lambda _: SLOW_DOWN
        unavailable(await acme.put("a", b"2"))
        unavailable(await acme.delete("a"))
        proxy.fault = lambda _: None
        assert (await acme.get("a")).body == b"1"


async def test_a_store_that_does_not_answer_holds_up_nobody_for_long(
    serve: Serve, proxy: FaultyProxy
) -> None:
    held = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(_: str) -> None:
        asyncio.run_coroutine_threadsafe(held.wait(), loop).result()

    async with serve(port=proxy.port, call_timeout=0.5) as served:
        proxy.fault = hold
        slow = await served.acme.get("a")
        # Whoever gives up first: the request, or what asks the store.
        assert (slow.status, slow.code) in [(503, "DRIVE_BUSY"), (503, "DRIVE_UNAVAILABLE")]
        assert int(slow.headers["Retry-After"]) > 0
        assert (await served.gateway.http.get(served.gateway.server.make_url("/health"))).ok
        held.set()


async def test_wrong_credentials_are_ours_and_not_shown(serve: Serve, tmp_path: Path) -> None:
    wrong = write_credentials(tmp_path / "wrong", "AKIAWRONG", "wrong-secret")
    with capture_logs() as log:
        async with serve(credentials_file=wrong) as served:
            unavailable(await served.acme.get("a"))
            unavailable(await served.acme.put("a", b"1"))
    refused = [each for each in log if each["event"] == "drive_store_refused"]
    assert {each["log_level"] for each in refused} == {"error"}
    assert "refuses its credentials" in refused[0]["reason"]
    assert "AKIAWRONG" not in str(log)
    assert "wrong-secret" not in str(log)


async def test_a_download_goes_on_where_the_store_broke_off(
    serve: Serve, proxy: FaultyProxy
) -> None:
    content = os.urandom(5_000_000)
    async with serve(port=proxy.port) as served:
        await asyncio.to_thread(served.store.write, "acme/a", content)
        # Of each answer there comes a part.
        proxy.fault = lambda line: -1_500_000 if "/acme/a" in line else None
        assert (await served.acme.get("a")).body == content
        assert sum("/acme/a" in line for line in proxy.seen) > 3


async def test_a_file_that_is_replaced_while_it_is_sent_is_not_sent_to_its_end(
    serve: Serve, proxy: FaultyProxy
) -> None:
    content = os.urandom(5_000_000)
    async with serve(port=proxy.port) as served:
        await asyncio.to_thread(served.store.write, "acme/a", content)
        replaced = False

        def replace(line: str) -> int | None:
            nonlocal replaced
            if "/acme/a" not in line:
                return None
            if not replaced:
                replaced = True
                return -2_000_000
            served.store.write("acme/a", bytes(5_000_000))
            return None

        proxy.fault = replace
        with pytest.raises(aiohttp.ClientPayloadError):
            await served.acme.get("a")
        # It was replaced before it was asked for again.
        assert (await served.acme.get("a")).body == bytes(5_000_000)
