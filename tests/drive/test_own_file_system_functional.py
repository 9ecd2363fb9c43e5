"""A tenant whose folder is a link to another file system: files are copied to their places."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.drive.folder import counting, placing
from app.files.copying import copy_part
from tests.drive.conftest import Served
from tests.drive.tus import Tus
from tests.leftovers import memory_folder

MiB = 1024 * 1024


@pytest.fixture
def elsewhere(served: Served) -> Iterator[Path]:
    """The folder of `acme`, in memory."""
    with memory_folder() as path:
        (served.root / "acme").symlink_to(path)
        assert os.stat(path).st_dev != os.stat(served.root).st_dev
        yield path


@pytest.fixture
async def copying(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[threading.Event, ...]]:
    """Set when a copy has begun, and what lets it go on."""
    begun, released = threading.Event(), threading.Event()

    def slow(source: int, target: int, offset: int, count: int) -> int:
        if not begun.is_set():
            begun.set()
            released.wait(60)
        return copy_part(source, target, offset, count)

    monkeypatch.setattr(placing, "copy_part", slow)
    yield begun, released
    released.set()


def staged(served: Served) -> list[str]:
    folder = served.root / ".uploads" / "acme"
    return sorted(each.name for each in folder.iterdir() if each.suffix not in (".json", ""))


async def test_files_get_there_whole(
    served: Served, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "_PIECE", MiB)
    content = os.urandom(3 * MiB + 7)
    assert (await served.acme.put("data/a", content)).status == 201
    tag = (await served.acme.put("data/a", content[1:])).headers["ETag"]
    assert (elsewhere / "data/a").read_bytes() == content[1:]
    assert (await served.acme.get("data/a")).headers["ETag"] == tag
    refused = await served.acme.put("data/a", b"1", headers={"If-None-Match": "*"})
    assert refused.code == "PRECONDITION_FAILED"
    assert (await served.acme.put("empty")).status == 201

    tus = Tus(served.acme)
    url = await tus.started("data/b", len(content))
    assert (await tus.patch(url, 0, content)).status == 204
    assert (elsewhere / "data/b").read_bytes() == content
    assert await tus.offset(url) == len(content)
    # No copy is left, in either place.
    assert sorted(os.listdir(elsewhere / "data")) == ["a", "b"]
    assert staged(served) == []


async def test_its_own_disk_keeps_some_room(
    served: Served, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drive's has plenty."""
    real = counting.free_bytes

    def free(folder: Path) -> int:
        own = folder.stat().st_dev == elsewhere.stat().st_dev
        return 1024 * MiB + 2 * MiB if own else real(folder) + 10 * 1024 * MiB

    monkeypatch.setattr(counting, "free_bytes", free)
    refused = await served.acme.put("a", b"x" * 3 * MiB, expect100=True)
    assert (refused.status, refused.code) == (507, "DRIVE_FULL")
    assert "your tenant's disk" in refused.body.decode()
    assert (await served.acme.put("a", b"x" * MiB)).status == 201


async def test_the_lock_is_not_held_while_a_file_is_copied(
    served: Served, elsewhere: Path, copying: tuple[threading.Event, ...]
) -> None:
    begun, released = copying
    (elsewhere / "old").write_bytes(b"1")
    upload = asyncio.ensure_future(served.acme.put("new", b"x" * MiB))
    await asyncio.to_thread(begun.wait, 60)
    async with asyncio.timeout(60):
        assert (await served.acme.delete("old")).status == 204
        assert (await served.acme.put("other", b"1")).status == 201
        # Nobody sees the half of it.
        assert await served.acme.names() == ["other"]
        assert os.listdir(elsewhere) == ["other"]
    released.set()
    assert (await upload).status == 201
    assert (elsewhere / "new").read_bytes() == b"x" * MiB


async def test_a_precondition_counts_when_the_copy_gets_to_its_place(
    served: Served, elsewhere: Path, copying: tuple[threading.Event, ...]
) -> None:
    begun, released = copying
    late = asyncio.ensure_future(served.acme.put("a", b"x" * MiB, headers={"If-None-Match": "*"}))
    await asyncio.to_thread(begun.wait, 60)
    assert (await served.acme.put("a", b"first", headers={"If-None-Match": "*"})).status == 201
    released.set()
    assert (await late).code == "PRECONDITION_FAILED"
    assert (elsewhere / "a").read_bytes() == b"first"
    assert os.listdir(elsewhere) == ["a"]


async def test_a_folder_that_is_deleted_disappears_at_once_and_goes(
    served: Served, elsewhere: Path
) -> None:
    for number in range(5):
        assert (await served.acme.put(f"data/{number}/a", b"1")).status == 201
    assert (await served.acme.delete("data?recursive=true")).status == 204
    assert not (elsewhere / "data").exists()
    await served.swept()
    assert os.listdir(elsewhere) == []
