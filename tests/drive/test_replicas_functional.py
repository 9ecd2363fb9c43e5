"""Two replicas on one machine: what one lets in, the other knows of at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from app.drive.folder.ledger import Claim, Ledger
from app.drive.folder.usage import Usage
from app.drive.settings import DriveSettings
from tests.drive.asking import DriveClient
from tests.drive.conftest import NOWHERE, room_of
from tests.drive.tus import Tus
from tests.replicas import new_key, replica, settings_for

MiB = 1024 * 1024


@pytest.fixture
async def two(migrated_dsn: str, drive_settings: DriveSettings) -> AsyncIterator[list[DriveClient]]:
    """Clients of one tenant, which has 10 MiB; each asks another replica. Both have counted."""
    async with both(migrated_dsn, drive_settings) as clients:
        yield clients


@asynccontextmanager
async def both(dsn: str, drive: DriveSettings) -> AsyncIterator[list[DriveClient]]:
    settings = settings_for(dsn, NOWHERE, drive=replace(drive, quota=10 * MiB))
    async with replica(settings) as first, replica(settings) as second:
        key = await new_key(dsn, tenant="acme")
        clients = [DriveClient(gateway, key.secret) for gateway in (first, second)]
        for each in clients:
            assert (await each.put("counted", b"1")).status in (200, 201)
        yield clients


def root_of(client: DriveClient) -> Path:
    return room_of(client.gateway)._root


async def counted(client: DriveClient) -> int:
    room = room_of(client.gateway)
    await room.count("acme")
    return room.used("acme")


async def until_refused(client: DriveClient, size: int) -> None:
    """Ask until a file of that size is refused, without sending it."""
    async with asyncio.timeout(60):
        while (answer := await client.put("refused", b"x" * size, expect100=True)).status == 201:
            assert (await client.delete("refused")).status == 204
    assert answer.code == "QUOTA_EXCEEDED"


async def test_what_one_has_stored_the_other_counts(two: list[DriveClient]) -> None:
    first, second = two
    assert (await first.put("a", b"x" * 6 * MiB)).status == 201
    await until_refused(second, 6 * MiB)
    assert (await second.put("b", b"x" * 3 * MiB)).status == 201
    await until_refused(first, 2 * MiB)
    assert (await second.delete("a")).status == 204
    async with asyncio.timeout(60):
        while (await first.put("c", b"x" * 6 * MiB)).status != 201:
            pass
    # Once both have counted, neither counts it twice.
    assert await counted(first) == await counted(second)
    assert 9 * MiB < await counted(first) < 10 * MiB


@pytest.mark.parametrize("known", [True, False])
async def test_what_is_on_its_way_through_one_takes_room_of_the_other(
    two: list[DriveClient], known: bool
) -> None:
    first, second = two
    gate = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield b"x" * MiB
        await gate.wait()
        yield b"x" * MiB

    length = {"Content-Length": str(7 * MiB)} if known else {}
    upload = asyncio.ensure_future(first.put("a", body(), headers=length))
    ledger = Ledger(root_of(first))
    async with asyncio.timeout(60):
        while await asyncio.to_thread(ledger.others, "acme") < 5 * MiB:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    ledger.close()
    refused = await second.put("refused", b"x" * 6 * MiB, expect100=True)
    assert refused.code == "QUOTA_EXCEEDED"
    # Of one piece it may not know yet.
    assert (await second.put("b", b"x" * 2 * MiB)).status == 201
    upload.cancel()
    await asyncio.gather(upload, return_exceptions=True)
    async with asyncio.timeout(60):
        while (await second.put("c", b"x" * 6 * MiB)).status != 201:
            pass


async def test_an_upload_through_one_takes_room_of_the_other(two: list[DriveClient]) -> None:
    first, second = two
    url = await Tus(first).started("a", 7 * MiB)
    assert (await Tus(second).create("b", 6 * MiB)).code == "QUOTA_EXCEEDED"
    assert (await Tus(second).ask("DELETE", url)).status == 204
    async with asyncio.timeout(60):
        while (await Tus(first).create("b", 6 * MiB)).status != 201:
            pass


async def test_of_two_at_once_one_is_refused(two: list[DriveClient]) -> None:
    for number in range(5):
        answers = await asyncio.gather(
            *(each.put(f"{number}-{name}", b"x" * 6 * MiB) for name, each in enumerate(two))
        )
        assert [each.status for each in answers].count(201) <= 1
        for name, each in enumerate(two):
            await each.delete(f"{number}-{name}")
            await counted(each)


def test_what_a_replica_that_ended_had_on_its_way_is_nothing(tmp_path: Path) -> None:
    one, other = Ledger(tmp_path), Ledger(tmp_path)
    one.add("acme", 5)
    claim = Claim()
    assert one.claim("acme", claim, 100) == 0
    assert other.others("acme") == 105
    assert other.counted("acme", other.mark("acme")) == 100
    one.end("acme", claim, 7)
    one.claim("acme", claim, 1000)
    assert other.others("acme") == 7
    one.claim("acme", Claim(), 30)
    one.close()
    one.end("acme", claim, 1)
    assert other.others("acme") == 7
    assert other.counted("acme", other.mark("acme")) == 0
    assert not list((tmp_path / ".uploads/.usage/acme").iterdir())
    assert other.others("rival") == 0
    other.close()


def test_what_goes_during_a_count_is_not_taken_off_it(tmp_path: Path) -> None:
    """The count may have come to its place after it had gone."""
    one, other = Ledger(tmp_path), Ledger(tmp_path)
    one.add("acme", 100)
    mark = other.mark("acme")
    one.add("acme", -60)
    assert other.counted("acme", mark) == 0
    one.add("acme", -30)
    one.add("acme", 5)
    assert other.others("acme") == -25
    one.close()
    other.close()


def test_a_tenant_does_not_lower_its_count_by_deleting_while_it_runs() -> None:
    usage = Usage(quota=100, min_free=0)
    usage.count_begins("acme")
    usage.count_ends("acme", 90)
    usage.count_begins("acme")
    # The count comes to its folder after that.
    usage.add("acme", -80)
    assert usage.used("acme") == 10
    usage.count_ends("acme", 10)
    assert usage.used("acme") == 10
    # What comes during a count is not forgotten either.
    usage.count_begins("acme")
    usage.add("acme", 50)
    usage.count_ends("acme", 10)
    assert usage.used("acme") == 60
