"""What jobs may leave in a tenant's folder breaks nothing, and opens nothing beside it."""

import asyncio
import ctypes
import os
import socket
from pathlib import Path

import pytest

from tests.drive.conftest import Served

#: Of renameat2(2): both names are exchanged at once.
_HERE, _EXCHANGE = -100, 2


@pytest.fixture
def secret(served: Served) -> Path:
    """A file beside the tenants' folders."""
    path = served.root.parent / "secret"
    path.write_bytes(b"of the machine")
    served.folder.mkdir()
    return path


def read(path: Path) -> bytes:
    return path.read_bytes()


async def test_links_are_told_deleted_and_never_followed(served: Served, secret: Path) -> None:
    acme, folder = served.acme, served.folder
    (served.root / "rival").mkdir()
    (served.root / "rival" / "file").write_bytes(b"the rival's")
    await acme.put("own/file", b"own")
    leads_to = {
        "out": secret,
        "root": Path("/"),
        "rival": Path("../rival"),
        "dangling": Path("nowhere"),
        "itself": Path("itself"),
        "within": Path("own"),
        "file": Path("own/file"),
    }
    for name, target in leads_to.items():
        (folder / name).symlink_to(target)
    entries = {each["name"]: each for each in (await acme.get("")).data["entries"]}
    assert {name for name, each in entries.items() if each["kind"] == "link"} == {*leads_to}
    assert all(entries[name]["size_bytes"] is None for name in leads_to)
    for name in leads_to:
        answer = await acme.get(name)
        assert (answer.status, answer.code) == (403, "FILE_NOT_SERVED")
        assert (await acme.put(name, b"x")).code == "FILE_CONFLICT"
        assert (await acme.get(f"{name}/file")).code == "FILE_NOT_FOUND"
        assert (await acme.get(f"{name}/")).code == "FILE_NOT_FOUND"
        assert (await acme.put(f"{name}/new", b"x")).code == "FILE_CONFLICT"
        assert (await acme.delete(f"{name}/file?recursive=true")).code == "FILE_NOT_FOUND"
    for name in leads_to:
        assert (await acme.delete(f"{name}?recursive=true")).status == 204
    assert read(secret) == b"of the machine"
    assert (served.root / "rival" / "file").read_bytes() == b"the rival's"
    assert (await acme.get("own/file")).body == b"own"


async def test_special_files_are_told_deleted_and_never_opened(
    served: Served, secret: Path
) -> None:
    folder = served.folder
    os.mkfifo(folder / "fifo")
    listening = socket.socket(socket.AF_UNIX)
    held = os.open(folder, os.O_RDONLY)
    listening.bind(f"/proc/self/fd/{held}/socket")  # its own path may be too long
    os.close(held)
    names = ["fifo", "socket"]
    if os.geteuid() == 0:
        os.mknod(folder / "device", 0o600 | 0o020000, os.makedev(1, 5))  # zeros without an end
        names.append("device")
    listed = (await served.acme.get("")).data["entries"]
    assert {each["name"]: each["kind"] for each in listed} == dict.fromkeys(names, "special")
    for name in names:
        assert (await served.acme.get(name)).code == "FILE_NOT_SERVED"
        assert (await served.acme.head(name)).status == 403
        assert (await served.acme.put(name, b"x")).code == "FILE_CONFLICT"
        assert (await served.acme.delete(name)).status == 204
    listening.close()


async def test_names_that_are_not_utf_8_are_listed_and_cannot_be_named(
    served: Served, secret: Path
) -> None:
    folder = os.fsencode(served.folder)
    for name in (b"\xff", b"a\xc3", b"\\xff", b"\xed\xa0\x80"):
        with open(os.path.join(folder, name), "wb"):  # noqa: ASYNC230 - a test's own
            pass
    listed = (await served.acme.get("")).data["entries"]
    assert [(each["name"], each["addressable"]) for each in listed] == [
        ("\\xff", True),
        ("a\\xc3", False),
        ("\\xed\\xa0\\x80", False),
        ("\\xff", False),
    ]
    first = (await served.acme.get("?page_size=2")).data
    second = (await served.acme.get(f"?page_token={first['next_page_token']}")).data
    assert first["entries"] + second["entries"] == listed
    assert (await served.acme.get("%FF")).code == "FILE_NAME_INVALID"
    assert (await served.acme.get("%5Cxff")).status == 200


async def test_hard_links_are_files(served: Served, secret: Path) -> None:
    await served.acme.put("a", b"1")
    os.link(served.folder / "a", served.folder / "b")
    tag = (await served.acme.head("a")).headers["ETag"]
    assert (await served.acme.put("b", b"2")).status == 200
    assert (await served.acme.get("a", headers={"If-Match": tag})).body == b"1"
    assert (await served.acme.delete("b")).status == 204
    assert (await served.acme.get("a")).body == b"1"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs other users")
async def test_files_of_other_owners_are_read_replaced_and_deleted(
    served: Served, secret: Path
) -> None:
    for name, mode in (("a", 0o000), ("b", 0o200), ("folder", 0o000)):
        path = served.folder / name
        path.mkdir() if name == "folder" else path.write_bytes(b"1")
        os.chown(path, 12345, 12345)
        path.chmod(mode)
    assert (await served.acme.get("a")).body == b"1"
    assert (await served.acme.put("a", b"2")).status == 200
    assert (await served.acme.delete("b")).status == 204
    assert (await served.acme.put("folder/c", b"3")).status == 201
    assert (await served.acme.delete("folder?recursive=true")).status == 204


async def test_a_folder_that_is_swapped_for_a_link_leads_nowhere_else(
    served: Served, secret: Path
) -> None:
    outside = served.root.parent / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"of the machine")
    await served.acme.put("folder/file", b"own")
    folder, link = served.folder / "folder", served.folder / "link"
    link.symlink_to(outside)
    stop = asyncio.Event()
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(folder), os.fsencode(link)

    async def swapping() -> None:
        while not stop.is_set():
            assert libc.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0
            await asyncio.sleep(0)

    task = asyncio.create_task(swapping())
    seen = set()
    for number in range(150):
        answer = await served.acme.get("folder/file")
        seen.add(answer.body if answer.status == 200 else answer.status)
        put = await served.acme.put(f"folder/new{number}", b"x")
        assert put.status in (201, 409), put.body
        gone = await served.acme.delete("folder/file2?recursive=true")
        assert gone.status == 404
    stop.set()
    await task
    assert seen <= {b"own", 404}
    assert [each.name for each in outside.iterdir()] == ["file"]


async def test_a_file_that_shrinks_is_no_whole_file(served: Served, secret: Path) -> None:
    path = served.folder / "large"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    port = served.gateway.server.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
    writer.write(
        f"GET /v1/drive/large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.acme.token}"
        "\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"Content-Length: 50000000" in head
    os.truncate(path, 1_000_000)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await reader.readexactly(50_000_000)
    writer.close()
    assert (await served.acme.get("large")).headers["Content-Length"] == "1000000"


async def test_what_is_added_while_a_file_is_sent_is_left_out(served: Served, secret: Path) -> None:
    path = served.folder / "log"
    path.write_bytes(b"x" * 20_000_000)
    port = served.gateway.server.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
    writer.write(
        f"GET /v1/drive/log HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {served.acme.token}\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    with path.open("ab") as file:
        file.write(b"y" * 1000)
    assert await reader.read(-1) == b"x" * 20_000_000
    writer.close()


async def test_a_tree_of_any_depth_goes_and_is_counted(served: Served, secret: Path) -> None:
    top = os.open(served.folder, os.O_RDONLY)
    here = top
    for _ in range(300):
        os.mkdir("d" * 20, dir_fd=here)
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=here)
        if here != top:
            os.close(here)
        here = below
    deep = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(deep, b"x" * 1_000_000)
    for each in (deep, here, top):
        os.close(each)
    await served.swept()
    assert served.used > 1_000_000
    assert (await served.acme.delete(f"{'d' * 20}?recursive=true")).status == 204
    assert await served.acme.names() == []
    await served.swept()
    assert served.used < 1_000_000
