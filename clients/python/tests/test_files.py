"""Files on a drive that breaks: each is whole or not there, and sent once."""

import asyncio
import base64
import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from scaimind import AsyncClient, Client
from scaimind.archive import pack
from scaimind.errors import Conflict, FileChanged, NotFound
from scaimind.selection import select

URL = "https://gateway.example"
DRIVE, UPLOADS = "/v1/drive/", "/v1/drive-uploads/"


class Drive:
    """The gateway's side in memory. `faults` are taken one for each request, None for none."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.uploads: dict[str, tuple[str, int, bytes]] = {}
        self.asked: list[tuple[str, str]] = []
        self.faults: list[str | None] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        self.asked.append((request.method, path))
        fault = self.faults.pop(0) if self.faults else None
        if fault == "refused":
            raise httpx2.ConnectError("refused", request=request)
        if path.startswith(UPLOADS):
            return self._upload(request, path.removeprefix(UPLOADS), fault)
        answer = self._file(request, path.removeprefix(DRIVE))
        if fault == "cut":
            stream = Cut(answer.content[: len(answer.content) // 2])
            return httpx2.Response(answer.status_code, headers=answer.headers, stream=stream)
        if fault == "lost":
            raise httpx2.ReadError("reset", request=request)
        return answer

    def etag(self, name: str) -> str:
        return f'"{hashlib.sha256(self.files[name]).hexdigest()[:8]}"'

    def _file(self, request: httpx2.Request, name: str) -> httpx2.Response:
        if name.endswith("/") or not name:
            return self._folder(name)
        if request.method == "PUT":
            if request.headers.get("if-none-match") == "*" and name in self.files:
                return refusal(412, "PRECONDITION_FAILED")
            self.files[name] = request.read()
            return httpx2.Response(201, json={"data": {}}, headers={"etag": self.etag(name)})
        if name not in self.files:
            return refusal(404, "FILE_NOT_FOUND")
        if request.method == "DELETE":
            del self.files[name]
            return httpx2.Response(204)
        headers = {"etag": self.etag(name), "content-length": str(len(self.files[name]))}
        if request.method == "HEAD":
            return httpx2.Response(200, headers=headers)
        if request.headers.get("if-match", headers["etag"]) != headers["etag"]:
            return refusal(412, "PRECONDITION_FAILED")
        begin = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=")[:-1])
        content = self.files[name][begin:]
        headers["content-length"] = str(len(content))
        return httpx2.Response(206 if begin else 200, content=content, headers=headers)

    def _folder(self, name: str) -> httpx2.Response:
        below = {each.removeprefix(name) for each in self.files if each.startswith(name)}
        if name and not below:
            return refusal(404, "FILE_NOT_FOUND")
        entries = [
            {"name": each, "kind": "file", "etag": self.etag(name + each), "size_bytes": 1}
            for each in sorted(below)
            if "/" not in each
        ]
        uri = f"scaidrive://t/{name}"
        return httpx2.Response(
            200, json={"data": {"uri": uri, "entries": entries, "next_page_token": ""}}
        )

    def _upload(self, request: httpx2.Request, key: str, fault: str | None) -> httpx2.Response:
        if request.method == "POST":
            _, encoded = request.headers["upload-metadata"].split(" ")
            key = f"u{len(self.uploads)}"
            name = base64.b64decode(encoded).decode()
            self.uploads[key] = (name, int(request.headers["upload-length"]), b"")
            return httpx2.Response(201, headers={"location": f"{URL}{UPLOADS}{key}"})
        if key not in self.uploads:
            return refusal(404, "UPLOAD_NOT_FOUND")
        name, size, content = self.uploads[key]
        if request.method == "HEAD":
            return httpx2.Response(200, headers={"upload-offset": str(len(content))})
        assert request.headers["upload-offset"] == str(len(content))
        sent = request.read()
        content += sent[: len(sent) // 2] if fault == "cut" else sent
        self.uploads[key] = (name, size, content)
        if len(content) == size:
            del self.uploads[key]
            self.files[name] = content
        if fault in ("cut", "lost"):
            raise httpx2.WriteError("reset", request=request)
        if fault == "busy":
            return refusal(503, "DRIVE_BUSY")
        return httpx2.Response(204, headers={"upload-offset": str(len(content)), "etag": '"e"'})


class Cut(httpx2.SyncByteStream):
    """A body that breaks after some bytes."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content
        raise httpx2.ReadError("reset")


def refusal(status: int, code: str) -> httpx2.Response:
    return httpx2.Response(status, json={"error": {"code": code, "message": "no"}})


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Drive:
    async def pause(_: float) -> None:
        pass

    monkeypatch.setattr("scaimind.blocking.driver.pause", lambda _: None)
    monkeypatch.setattr("scaimind.asynchronous.driver.pause", pause)
    monkeypatch.setattr("scaimind.core.files.SMALL", 1000)
    monkeypatch.setattr("scaimind.core.files.PART", 3000)
    return Drive()


@pytest.fixture
def client(drive: Drive) -> Client:
    return Client(URL, "k", transport=httpx2.MockTransport(drive))


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


FAULTS: list[list[str | None]] = [
    [],
    ["refused", "refused"],
    [None, "cut", None, "cut", None, "busy"],
    [None, "lost", None, "lost", None, "lost"],
    [None, None, None, "refused", None, None, "refused"],
]


@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("size", [0, 10, 1001, 3000, 8001])
def test_an_upload_arrives_whole(
    size: int, faults: list[str | None], drive: Drive, client: Client, tmp_path: Path
) -> None:
    content = bytes(at % 251 for at in range(size))
    drive.faults = list(faults)
    told: list[int] = []
    client.files.upload(put(tmp_path / "a", content), "x/ä b", progress=told.append)
    assert drive.files == {"x/ä b": content}
    assert told == sorted(told)


def test_a_file_that_is_there_is_a_conflict(drive: Drive, client: Client, tmp_path: Path) -> None:
    path = put(tmp_path / "a", b"1")
    client.files.upload(path, "a", only_new=True)
    with pytest.raises(Conflict):
        client.files.upload(path, "a", only_new=True)


@pytest.mark.parametrize("faults", [[], ["cut", "cut"], ["refused", "cut", "refused"], ["cut"] * 9])
def test_a_download_is_whole(
    faults: list[str | None], drive: Drive, client: Client, tmp_path: Path
) -> None:
    drive.files["a"] = bytes(range(256)) * 40
    drive.faults = list(faults)
    client.files.download("a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == drive.files["a"]
    assert [each.name for each in tmp_path.iterdir()] == ["b"]


def test_a_file_that_is_replaced_meanwhile_is_no_mixture(
    drive: Drive, client: Client, tmp_path: Path
) -> None:
    drive.files["a"] = b"1" * 100
    drive.faults = ["cut"]
    put(tmp_path / "b", b"before")

    def replaced(_: int, __: int) -> None:
        drive.files["a"] = b"2" * 100

    with pytest.raises(FileChanged):
        client.files.download("a", tmp_path / "b", progress=replaced)
    assert (tmp_path / "b").read_bytes() == b"before"
    with pytest.raises(NotFound):
        client.files.download("nowhere", tmp_path / "c")
    assert [each.name for each in tmp_path.iterdir()] == ["b"]


def test_a_folder_is_sent_once_and_only_what_was_brought_is_removed(
    drive: Drive, client: Client, tmp_path: Path
) -> None:
    drive.files["f/theirs"] = b"theirs"
    for name in ("a", "sub/b", "gone"):
        put(tmp_path / name, name.encode())

    def sync(**more: Any) -> tuple[list[str], list[str], list[str]]:
        done = client.files.sync(select(tmp_path).files, "f", **more)
        return done.stored, done.unchanged, done.removed

    assert sync() == (["a", "gone", "sub/b"], [], [])
    assert sync() == ([], ["a", "gone", "sub/b"], [])
    (tmp_path / "gone").unlink()
    put(tmp_path / "a", b"new")
    drive.files["f/sub/b"] = b"changed by another"
    assert sync() == (["a", "sub/b"], [], [])
    assert "f/gone" in drive.files
    assert sync(delete=True) == ([], ["a", "sub/b"], ["gone"])
    assert drive.files["f/sub/b"] == b"sub/b"
    assert "f/theirs" in drive.files
    assert "f/gone" not in drive.files


def test_the_asynchronous_client_does_the_same(drive: Drive, tmp_path: Path) -> None:
    content = b"x" * 5000

    async def use() -> None:
        # The blocking transport answers at once, which is enough here.
        transport = httpx2.MockTransport(drive)
        async with AsyncClient(URL, "k", transport=transport) as client:
            await client.files.upload(put(tmp_path / "a", content), "a")
            await client.files.download("a", tmp_path / "b")
            assert [each.name async for each in client.files.list()] == ["a"]
            done = await client.files.sync(select(tmp_path).files, "f")
            assert done.stored == ["a", "b"]
            await client.files.remove("a")

    asyncio.run(use())
    assert (tmp_path / "b").read_bytes() == content
    assert "a" not in drive.files


def test_the_same_folder_is_the_same_archive(tmp_path: Path) -> None:
    packed = []
    for name in ("one", "two"):
        put(tmp_path / name / "sub/train.py", b"x")
        put(tmp_path / name / "äää", b"y").chmod(0o755)
        with (tmp_path / f"{name}.tar.gz").open("wb") as file:
            pack(select(tmp_path / name).files, file)
        packed.append((tmp_path / f"{name}.tar.gz").read_bytes())
    assert packed[0] == packed[1]
    with tarfile.open(tmp_path / "one.tar.gz") as archive:
        modes = {each.name: (each.mode, each.uid, each.mtime) for each in archive}
    assert modes == {"sub/train.py": (0o644, 0, 0), "äää": (0o755, 0, 0)}
