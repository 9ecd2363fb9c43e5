"""What one tenant can hold of what all share: threads, places in the queue, counts."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from app.drive.drive import Page, PageRequest
from app.drive.folder import counting, tree
from app.drive.folder.tree import OpenFile
from app.drive.paths import DrivePath
from app.drive.settings import DriveSettings
from app.drive.threads import Turns
from tests.drive.asking import DriveClient
from tests.drive.conftest import NOWHERE, room_of
from tests.replicas import Replica, new_key, replica, settings_for


@asynccontextmanager
async def two_tenants(
    dsn: str, settings: DriveSettings
) -> AsyncIterator[tuple[Replica, DriveClient, DriveClient]]:
    async with replica(settings_for(dsn, NOWHERE, drive=settings)) as gateway:
        keys = [await new_key(dsn, tenant=tenant) for tenant in ("acme", "rival")]
        acme, rival = (DriveClient(gateway, key.secret) for key in keys)
        yield gateway, acme, rival


async def test_the_listings_of_one_tenant_hold_half_of_the_threads(
    migrated_dsn: str, drive_settings: DriveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that takes for ever to list: of millions of entries, or on a disk of its own."""
    read, released = tree.read, threading.Event()
    held = 0

    def slow(root: Path, tenant_id: str, path: DrivePath, page: PageRequest) -> OpenFile | Page:
        nonlocal held
        if tenant_id == "acme":
            held += 1
            released.wait(60)
        return read(root, tenant_id, path, page)

    monkeypatch.setattr(tree, "read", slow)
    settings = replace(drive_settings, threads=4, call_timeout=60)
    async with two_tenants(migrated_dsn, settings) as (_, acme, rival):
        listings = [asyncio.ensure_future(acme.get("")) for _ in range(20)]
        async with asyncio.timeout(60):
            while held < 2:  # noqa: ASYNC110 - another thread's work
                await asyncio.sleep(0.01)
            assert (await rival.put("a", b"1")).status == 201
            assert (await rival.get("a")).body == b"1"
            assert await rival.names() == ["a"]
        assert held == 2
        released.set()
        assert {(await each).status for each in listings} == {200}


async def test_the_calls_of_one_tenant_take_half_of_the_queue(
    migrated_dsn: str, drive_settings: DriveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, released = tree.read, threading.Event()

    def slow(root: Path, tenant_id: str, path: DrivePath, page: PageRequest) -> OpenFile | Page:
        if tenant_id == "acme":
            released.wait(60)
        return read(root, tenant_id, path, page)

    monkeypatch.setattr(tree, "read", slow)
    settings = replace(drive_settings, threads=2, call_timeout=60, max_transfers=1000)
    async with two_tenants(migrated_dsn, settings) as (_, acme, rival):
        waiting = [asyncio.ensure_future(acme.get("")) for _ in range(140)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert {(await each).code for each in done} == {"DRIVE_BUSY"}
        assert (await rival.get("")).status == 200
        released.set()
        assert {(await each).status for each in waiting} == {200, 503}


async def test_a_tenant_that_takes_long_to_count_holds_up_no_other_one(
    migrated_dsn: str, drive_settings: DriveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, released = counting.used_bytes, threading.Event()

    def slow(root: Path, tenant_id: str, abandoned: threading.Event) -> int:
        if tenant_id != "rival":
            released.wait(60)
        return count(root, tenant_id, abandoned)

    monkeypatch.setattr(counting, "used_bytes", slow)
    async with two_tenants(migrated_dsn, drive_settings) as (gateway, _, rival):
        room = room_of(gateway)
        counts = [asyncio.ensure_future(room.count(each)) for each in ("acme", "other")] * 3
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await room.count("rival")
            assert (await rival.put("a", b"1")).status == 201
        released.set()
        await asyncio.gather(*counts)


def test_owners_take_turns_and_none_has_more_than_its_share() -> None:
    turns: Turns[int] = Turns(most=2)
    for number in range(4):
        turns.put("acme", number)
    turns.put("rival", 10)
    assert [turns.take() for _ in range(3)] == [("acme", 0), ("rival", 10), ("acme", 1)]
    taken: list[tuple[str, int] | None] = []
    thread = threading.Thread(target=lambda: taken.append(turns.take()))
    thread.start()
    # It is not taken from the two that acme has already.
    turns.put("rival", 11)
    thread.join(60)
    assert taken == [("rival", 11)]
    turns.done("acme")
    turns.close()
    assert turns.take() == ("acme", 2)
    turns.done("acme")
    assert turns.take() == ("acme", 3)
    turns.done("acme")
    assert turns.take() is None
