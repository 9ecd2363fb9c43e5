"""What uploads may take, what a disk that hangs holds up, and when a transfer ends."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.api.app_keys import DRIVE, REVOCATIONS, TRANSFERS
from app.api.settings import ServerSettings
from app.drive.folder import counting, tree, upload_files
from app.drive.settings import DriveSettings
from app.scaikey.api_keys import revoke_key
from tests.drive.asking import DriveClient
from tests.drive.conftest import NOWHERE, Served, room_of
from tests.drive.tus import Tus
from tests.hub.log_coordinator import LogCoordinator, one_job
from tests.replicas import Replica, in_thread, new_key, replica, settings_for

MiB = 1024 * 1024


@asynccontextmanager
async def serving(
    dsn: str, settings: DriveSettings, *, coordinator: str = NOWHERE
) -> AsyncIterator[tuple[Replica, DriveClient]]:
    """A gateway with these settings, and a client of `acme`."""
    async with replica(settings_for(dsn, coordinator, drive=settings)) as gateway:
        key = await new_key(dsn, tenant="acme")
        yield gateway, DriveClient(gateway, key.secret)


def put(settings: DriveSettings, name: str, content: bytes) -> None:
    """Have a file in the folder of `acme`, by no request: the gateway under test may be hasty."""
    assert settings.dir is not None
    folder = settings.dir / "acme"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)


async def never(size: int = 1) -> AsyncIterator[bytes]:
    """A body that begins and does not end."""
    yield b"x" * size
    await asyncio.Event().wait()


async def test_a_quota_counts_what_jobs_write_and_what_is_on_its_way(
    migrated_dsn: str, drive_settings: DriveSettings
) -> None:
    assert drive_settings.dir is not None
    jobs = drive_settings.dir / "acme" / "jobs" / "job-1" / "checkpoints"
    jobs.mkdir(parents=True)
    (jobs / "model").write_bytes(b"x" * 4 * MiB)
    limited = replace(drive_settings, quota=10 * MiB)
    async with serving(migrated_dsn, limited) as (_, acme):
        refused = await acme.put("a", b"x" * 7 * MiB, expect100=True)
        assert (refused.status, refused.code) == (507, "QUOTA_EXCEEDED")
        message = refused.body.decode()
        assert str(10 * MiB) in message
        assert str(7 * MiB) in message
        assert not (drive_settings.dir / "acme" / "a").exists()
        tus = Tus(acme)
        url = await tus.started("a", 5 * MiB)
        # Not a byte of it has come, and the room is taken.
        assert (await tus.create("b", 2 * MiB)).code == "QUOTA_EXCEEDED"
        assert (await acme.put("b", b"x" * 2 * MiB)).code == "QUOTA_EXCEEDED"
        assert (await tus.ask("DELETE", url)).status == 204
        assert (await acme.put("b", b"x" * 2 * MiB)).status == 201
        assert (await acme.put("c", b"x" * 4 * MiB)).code == "QUOTA_EXCEEDED"
        assert (await acme.delete("b")).status == 204
        assert (await acme.put("c", b"x" * 4 * MiB)).status == 201


async def test_replacing_a_file_frees_what_it_took(served: Served) -> None:
    await served.acme.put("first", b"x" * MiB)
    sparse, linked = served.folder / "sparse", served.folder / "linked"
    with sparse.open("wb") as file:
        file.truncate(512 * 1024 * MiB)
    linked.write_bytes(b"x" * 4 * MiB)
    os.link(linked, served.folder / "second name")
    await served.swept()
    before = served.used
    assert before >= 5 * MiB
    for name in ("sparse", "linked"):
        assert (await served.acme.put(name, b"1")).status == 200
    assert before <= served.used <= before + MiB
    with sparse.open("wb") as file:
        file.truncate(512 * 1024 * MiB)
    await Tus(served.acme).started("sparse", 1, data=b"1")
    assert before <= served.used <= before + MiB
    await served.acme.put("first", b"1")
    assert served.used <= before


async def test_an_upload_does_not_go_on_above_the_quota(
    migrated_dsn: str, drive_settings: DriveSettings
) -> None:
    assert drive_settings.dir is not None
    async with serving(migrated_dsn, replace(drive_settings, quota=10 * MiB)) as (gateway, acme):
        tus = Tus(acme)
        url = await tus.started("a", 2 * MiB)
        assert (await tus.patch(url, 0, b"x")).status == 204
        written = drive_settings.dir / "acme" / "written by a job"
        written.parent.mkdir(exist_ok=True)
        written.write_bytes(b"x" * 9 * MiB)
        await room_of(gateway).count("acme")
        refused = await tus.patch(url, 1, b"x")
        assert (refused.status, refused.code) == (507, "QUOTA_EXCEEDED")
        assert await tus.offset(url) == 1
        written.unlink()
        await room_of(gateway).count("acme")
        assert (await tus.patch(url, 1, b"x" * (2 * MiB - 1))).status == 204


async def test_a_body_of_unknown_length_ends_at_the_quota(
    migrated_dsn: str, drive_settings: DriveSettings
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * MiB

    async with serving(migrated_dsn, replace(drive_settings, quota=5 * MiB)) as (_, acme):
        assert (await acme.put("a", endless())).code == "QUOTA_EXCEEDED"
        assert await acme.names() == []
        assert drive_settings.dir is not None
        staging = drive_settings.dir / ".uploads" / "acme"
        left = [each.name for each in staging.iterdir() if each.name != "lock"]
        assert left in ([], [each for each in left if each.startswith("put-")])
        tus = Tus(acme)
        url = await tus.started("a", None)
        assert (await tus.patch(url, 0, endless())).code == "QUOTA_EXCEEDED"
        assert await tus.offset(url) <= 5 * MiB


async def test_the_disk_keeps_some_room(
    migrated_dsn: str, drive_settings: DriveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 1024 * MiB
    monkeypatch.setattr(counting, "free_bytes", lambda _: free)
    low = replace(drive_settings, min_free=free - 2 * MiB, quota=0)
    async with serving(migrated_dsn, low) as (_, acme):
        refused = await acme.put("a", b"x" * 20 * MiB, expect100=True)
        assert (refused.status, refused.code) == (507, "DRIVE_FULL")
        assert str(low.min_free) in refused.body.decode()
        assert (
            "Tus-Max-Size"
            not in (await acme.ask("OPTIONS", "/v1/drive-uploads/", token=None)).headers
        )


@pytest.mark.parametrize("length", [8 * MiB, None])
async def test_room_that_somebody_else_took_stays_free(
    served: Served, monkeypatch: pytest.MonkeyPatch, length: int | None
) -> None:
    tus = Tus(served.acme)
    url = await tus.started("a", length)
    left = iter([100 * 1024 * MiB] * 4)

    def free(_: Path) -> int:
        return next(left, 1024 * MiB)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b"x" * MiB

    monkeypatch.setattr(counting, "free_bytes", free)
    refused = await tus.patch(url, 0, body())
    assert (refused.status, refused.code) == (507, "DRIVE_FULL")
    assert 0 < await tus.offset(url) < 8 * MiB
    left = iter([100 * 1024 * MiB] * 4)
    content = b"x" * 8 * MiB if length else body()
    refused = await served.acme.put("b", content)
    assert (refused.status, refused.code) == (507, "DRIVE_FULL")
    assert await served.acme.names() == []


async def test_what_uploads_lack_is_not_promised_twice(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "free_bytes", lambda _: 1024 * MiB + 10 * MiB)
    tus = Tus(served.acme)
    rival = await served.client("rival")
    url = await tus.started("a", 8 * MiB)
    for counted in (False, True):
        if counted:
            await served.swept()
        refused = await rival.put("b", b"1" * 3 * MiB, expect100=True)
        assert (refused.status, refused.code) == (507, "DRIVE_FULL")
        assert (await rival.put("c", b"1" * MiB)).status in (200, 201)
    assert (await tus.patch(url, 0, b"x" * 4 * MiB)).status == 204
    assert (await rival.put("b", b"1" * 3 * MiB)).status == 201
    assert (await tus.ask("DELETE", url)).status == 204
    assert (await rival.put("d", b"1" * 9 * MiB)).status == 201


async def test_a_tenant_has_so_many_unfinished_uploads(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_files, "MOST_UPLOADS", 3)
    tus = Tus(served.acme)
    urls = [await tus.started(f"a{number}", 1) for number in range(3)]
    refused = await tus.create("b", 1)
    assert (refused.status, refused.code) == (429, "RATE_LIMITED")
    assert "3 unfinished" in refused.body.decode()
    assert (await tus.ask("DELETE", urls[0])).status == 204
    assert (await tus.create("b", 1)).status == 201
    assert (await tus.create("c", 1)).status == 429
    assert (await tus.patch(urls[1], 0, b"1")).status == 204
    assert (await tus.create("c", 1)).status == 201


async def test_a_file_does_not_take_the_place_of_a_folder_of_jobs(served: Served) -> None:
    for path in ("jobs", "jobs/job-1"):
        refused = await served.acme.put(path, b"1")
        assert (refused.status, refused.code) == (409, "FILE_CONFLICT")
        assert (await Tus(served.acme).create(path, 1)).status == 409
    assert (await served.acme.put("jobs/job-1/notes", b"1")).status == 201
    assert (await served.acme.delete("jobs?recursive=true")).status == 409
    assert (await served.acme.delete("jobs/job-1?recursive=true")).status == 204
    (served.folder / "jobs" / "notes").write_bytes(b"1")
    assert (await served.acme.delete("jobs?recursive=true")).status == 204


class Stuck:
    """A disk that hangs: whoever reads from it is held until it is let go."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._released = threading.Event()
        self.held = 0

    def __call__(self, *arguments: Any) -> Any:
        self.held += 1
        self._released.wait(120)
        return self._function(*arguments)

    def release(self) -> None:
        self._released.set()


@pytest.fixture
async def coordinator() -> AsyncIterator[LogCoordinator]:
    async with one_job() as running:
        yield running


async def test_a_disk_that_hangs_holds_up_nothing_but_the_drive(
    migrated_dsn: str,
    drive_settings: DriveSettings,
    coordinator: LogCoordinator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = replace(drive_settings, threads=2, max_threads_share=1, call_timeout=0.3)
    async with serving(migrated_dsn, settings, coordinator=coordinator.address) as (gateway, acme):
        put(drive_settings, "a", b"1")
        stuck = Stuck(tree.read)
        monkeypatch.setattr(tree, "read", stuck)
        async with gateway.watch(token=acme.token, tail=0) as watching:
            assert (await watching.next()).name == "bookmark"
            asked = 0
            # A thread that is slow to begin finds that nobody waits any more.
            while stuck.held < 2:
                answers = await asyncio.gather(*(acme.get("a") for _ in range(12)))
                asked += len(answers)
                assert {(each.status, each.code) for each in answers} == {(503, "DRIVE_BUSY")}
                assert all("Retry-After" in each.headers for each in answers)
            assert stuck.held == 2
            # Every thread of the drive is held. What does not need its disk goes on.
            for number in range(20):
                await coordinator.log(f"line {number}")
                assert await watching.logs(1) == [f"line {number}"]
            assert (await gateway.ask("GET", "/openapi.json")).status == 200
            assert (await acme.put("b", b"2")).code == "DRIVE_BUSY"
        stuck.release()
        async with asyncio.timeout(60):
            while (await acme.get("a")).body != b"1":
                asked += 1
        # Those that nobody waited for were not begun.
        assert stuck.held < asked


async def test_nobody_waits_in_a_queue_that_is_too_long(
    migrated_dsn: str, drive_settings: DriveSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(drive_settings, threads=1, call_timeout=20, max_transfers=10_000)
    async with serving(migrated_dsn, settings) as (gateway, acme):
        await acme.put("a", b"1")
        stuck = Stuck(tree.read)
        monkeypatch.setattr(tree, "read", stuck)
        waiting = [asyncio.ensure_future(acme.get("a")) for _ in range(80)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert {(await each).code for each in done} == {"DRIVE_BUSY"}
        stuck.release()
        answers = await asyncio.gather(*waiting)
        assert {each.status for each in answers} == {200, 503}
        assert gateway.app[DRIVE] is not None


async def test_a_tenant_has_half_of_the_transfers(
    migrated_dsn: str, drive_settings: DriveSettings
) -> None:
    async with serving(migrated_dsn, replace(drive_settings, max_transfers=4)) as (gateway, acme):
        await acme.put("a", b"1")
        rival = DriveClient(gateway, (await new_key(migrated_dsn, tenant="rival")).secret)
        running = [asyncio.ensure_future(acme.put("x", never())) for _ in range(2)]
        async with asyncio.timeout(60):
            while (refused := await acme.get("a")).status != 429:
                pass
        assert refused.code == "RATE_LIMITED"
        assert (await rival.put("b", b"1")).status == 201
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        async with asyncio.timeout(60):
            while (await acme.get("a")).status != 200:
                pass


async def test_a_transfer_ends_with_the_key_behind_it(served: Served) -> None:
    key = await new_key(served.dsn, tenant="acme")
    client = DriveClient(served.gateway, key.secret)
    await served.acme.put("large", served_bytes(30 * MiB))
    upload = asyncio.ensure_future(client.put("a", never()))
    port = served.gateway.server.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
    writer.write(
        f"GET /v1/drive/large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key.secret}\r\n"
        "\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    async with asyncio.timeout(60):
        while len(served.gateway.app[TRANSFERS]._open) < 2:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
    await in_thread(revoke_key, served.dsn, key.key.key_id)
    served.gateway.app[REVOCATIONS]._missed.set()
    answer = await upload
    assert (answer.status, answer.code) == (401, "AUTH_EXPIRED")
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await reader.readexactly(30 * MiB)
    writer.close()
    assert (await client.get("large")).status == 401


async def test_a_transfer_that_makes_no_progress_ends_however_much_has_passed(
    migrated_dsn: str, drive_settings: DriveSettings
) -> None:
    # What has passed would earn weeks.
    slow = ServerSettings(body_timeout=0.5, answer_timeout=0.5, min_rate=1)
    settings = settings_for(migrated_dsn, NOWHERE, drive=drive_settings, server=slow)
    async with replica(settings) as gateway:
        acme = DriveClient(gateway, (await new_key(migrated_dsn, tenant="acme")).secret)
        put(drive_settings, "large", b"x" * 30 * MiB)
        late = await acme.put("a", never(2 * MiB))
        assert (late.status, late.code) == (408, "REQUEST_TIMEOUT")
        port = gateway.server.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
        writer.write(
            f"GET /v1/drive/large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {acme.token}\r\n"
            "\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        async with asyncio.timeout(60):
            while list(gateway.app[TRANSFERS].credentials()):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.05)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await reader.readexactly(30 * MiB)
        writer.close()


async def served_bytes(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // MiB):
        yield b"x" * MiB


async def test_an_upload_is_taken_over_by_who_comes_back(served: Served) -> None:
    tus = Tus(served.acme)
    url = await tus.started("a", 3 * MiB)
    lost = asyncio.ensure_future(tus.patch(url, 0, never(2 * MiB)))
    data = served.root / ".uploads" / "acme" / f"{url.rpartition('/')[2]}.data"
    async with asyncio.timeout(60):
        while size(data) < MiB:  # noqa: ASYNC110 - another process's work
            await asyncio.sleep(0.01)
    offset = await tus.offset(url)
    assert offset >= MiB
    answer = await lost
    assert (answer.status, answer.code) == (423, "UPLOAD_LOCKED")
    assert (await tus.patch(url, offset, b"y" * (3 * MiB - offset))).status == 204
    assert (await served.acme.head("a")).headers["Content-Length"] == str(3 * MiB)


async def test_another_replica_waits_until_an_upload_is_free(
    served: Served, drive_settings: DriveSettings
) -> None:
    tus = Tus(served.acme)
    url = await tus.started("a", 3 * MiB)
    first = asyncio.ensure_future(tus.patch(url, 0, never(2 * MiB)))
    data = served.root / ".uploads" / "acme" / f"{url.rpartition('/')[2]}.data"
    async with asyncio.timeout(60):
        while size(data) < MiB:  # noqa: ASYNC110 - another task's work
            await asyncio.sleep(0.01)
    async with serving(served.dsn, drive_settings) as (_, elsewhere):
        other = Tus(elsewhere)
        offset = await other.offset(url)
        assert offset >= MiB
        refused = await other.patch(url, offset, b"y")
        assert (refused.status, refused.code) == (423, "UPLOAD_LOCKED")
        assert (await other.ask("DELETE", url)).code == "UPLOAD_LOCKED"
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        async with asyncio.timeout(60):
            while (await other.patch(url, offset := await other.offset(url), b"")).status != 204:
                pass
        rest = b"y" * (3 * MiB - offset)
        assert (await other.patch(url, offset, rest)).status == 204
    assert (await served.acme.head("a")).headers["Content-Length"] == str(3 * MiB)


async def test_what_had_come_when_a_client_left_is_kept(served: Served) -> None:
    tus = Tus(served.acme)
    content = os.urandom(3 * MiB)
    url = await tus.started("a", len(content))
    port = served.gateway.server.port
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        (
            f"PATCH {url} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.acme.token}\r\n"
            f"Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Length: {len(content)}\r\n"
            "Content-Type: application/offset+octet-stream\r\n\r\n"
        ).encode()
        + content[: 2 * MiB]
    )
    data = served.root / ".uploads" / "acme" / f"{url.rpartition('/')[2]}.data"
    async with asyncio.timeout(60):
        while size(data) < MiB:  # noqa: ASYNC110 - another task's work
            await asyncio.sleep(0.01)
    writer.close()
    await writer.wait_closed()
    offset = await tus.offset(url)
    assert offset >= MiB
    assert (await tus.patch(url, offset, content[offset:])).status == 204
    assert (await served.acme.get("a")).body == content


def size(path: Path) -> int:
    return path.stat().st_size
