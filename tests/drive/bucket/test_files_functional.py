"""Files of a tenant in a bucket: stored, read, listed and deleted over HTTP."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

pytest.importorskip("s3fs")

from app.drive.bucket import checkpoints, tree, writing
from app.files.directory import Directory
from app.files.walking import Limits
from app.objects.published import PublishedTrees
from app.objects.s3_uploads import S3Uploads
from app.objects.store import DriveLacks
from app.objects.uploads import Condition
from tests.drive.bucket.conftest import Serve, ServedBucket
from tests.drive.test_files_functional import NAMES, NO_NAMES

CONTENT = bytes(range(256)) * 40
MIB = 1024 * 1024


async def keys(served: ServedBucket, prefix: str = "") -> list[str]:
    """What is in the store."""

    def listed() -> list[str]:
        return [each.key for each in served.store.objects(prefix)]

    return await asyncio.to_thread(listed)


async def put(served: ServedBucket, *names: str) -> None:
    """Have others put objects there."""
    for name in names:
        await asyncio.to_thread(served.store.write, name, name.encode())


async def test_a_file_is_stored_read_listed_and_deleted(served: ServedBucket) -> None:
    acme = served.acme
    stored = await acme.put("data/raw/a.bin", CONTENT)
    assert stored.status == 201
    assert await keys(served) == ["acme/data/raw/a.bin"]
    assert stored.data["uri"] == "scaidrive://acme/data/raw/a.bin"
    assert stored.data["etag"] == stored.headers["ETag"]
    read = await acme.get("data/raw/a.bin")
    assert (read.status, read.body) == (200, CONTENT)
    head = await acme.head("data/raw/a.bin")
    same = ("ETag", "Content-Length", "Content-Type", "Last-Modified", "Content-Disposition")
    assert [head.headers[name] for name in same] == [read.headers[name] for name in same]
    listed = (await acme.get("data/raw")).data
    assert (listed["path"], listed["next_page_token"]) == ("data/raw", "")
    assert listed["entries"] == [
        {
            "name": "a.bin",
            "kind": "file",
            "size_bytes": len(CONTENT),
            "modified_at": stored.data["modified_at"],
            "etag": stored.headers["ETag"],
            "addressable": True,
        }
    ]
    [folder] = (await acme.get("data/")).data["entries"]
    assert (folder["name"], folder["kind"], folder["modified_at"]) == ("raw", "folder", None)
    assert (await acme.delete("data/raw/a.bin")).status == 204
    for path in ("data/raw/a.bin", "data/raw/", "data", "data/?page_token=YQ=="):
        assert (await acme.get(path)).code == "FILE_NOT_FOUND"
    assert (await acme.delete("data/raw/a.bin")).code == "FILE_NOT_FOUND"
    # No other tenant's.
    await put(served, "rival/secret")
    assert (await acme.get("secret")).status == 404
    assert await acme.names() == []


async def test_pages_have_all_entries_in_the_order_of_keys(served: ServedBucket) -> None:
    names = [f"f{number:02}" for number in range(23)]
    await put(served, *(f"acme/d/{name}" for name in names))
    await put(served, "acme/d/", "acme/d/f05/x", "acme/d/f05/y", "acme/d/f05-", "acme/d/\u00c4")
    expected = sorted([*names, "f05/", "f05-", "\u00c4"], key=str.encode)
    for size in (1, 2, 7, 26, 100):
        found: list[str] = []
        token = ""
        while True:
            page = (await served.acme.get(f"d?page_size={size}&page_token={token}")).data
            assert len(page["entries"]) <= size
            found += [each["name"] + "/" * (each["kind"] == "folder") for each in page["entries"]]
            token = page["next_page_token"]
            if not token:
                break
        assert found == expected
    for token in ("%FF", "_w==", "YS9i", "YQBi"):
        answer = await served.acme.get(f"d?page_token={token}")
        assert (answer.status, answer.code) == (422, "VALIDATION_ERROR")


async def test_a_name_is_decoded_once(served: ServedBucket) -> None:
    for written, name in NAMES:
        if not name.isprintable() and name != "\u202e":
            continue
        assert (await served.acme.put(written, b"1")).status == 201
        assert await keys(served) == [f"acme/{name}"]
        assert (await served.acme.get(written)).body == b"1"
        assert await served.acme.names() == [name]
        assert (await served.acme.delete(written)).status == 204


async def test_what_is_no_name_is_refused(served: ServedBucket) -> None:
    await put(served, "b", "secret")
    for written in (
        *NO_NAMES,
        "%0A%1B",
        "a%7F",
        "a%EF%BF%BF",
        "%EF%BF%BEb",
        "/".join(["y" * 250] * 5),
    ):
        for answer in (
            await served.acme.get(written),
            await served.acme.put(written, b"1"),
            await served.acme.delete(f"{written}?recursive=true"),
        ):
            assert (answer.status, answer.code) == (400, "FILE_NAME_INVALID")
    assert await keys(served) == ["b", "secret"]


async def test_keys_that_no_path_has_are_listed_and_cannot_be_named(served: ServedBucket) -> None:
    long = "x" * 300
    await put(served, "acme//a", "acme/../b", f"acme/{long}", "acme/./c", "acme/z")
    entries = (await served.acme.get("")).data["entries"]
    assert [(each["name"], each["addressable"]) for each in entries] == [
        ("..", False),
        (".", False),
        ("", False),
        (long, False),
        ("z", True),
    ]
    page = (await served.acme.get("?page_size=4")).data
    rest = (await served.acme.get(f"?page_token={page['next_page_token']}")).data
    assert [each["name"] for each in rest["entries"]] == ["z"]


async def test_a_file_and_a_folder_are_not_taken_for_each_other(served: ServedBucket) -> None:
    acme = served.acme
    await acme.put("a/b", b"1")
    for answer in (await acme.put("a", b"2"), await acme.put("a/b/c", b"2")):
        assert (answer.status, answer.code) == (409, "FILE_CONFLICT")
    assert (await acme.put("a/b/c/d/e", b"2")).code == "FILE_CONFLICT"
    assert (await acme.put("a/", b"2")).code == "FILE_CONFLICT"
    assert (await acme.get("a/b/")).code == "FILE_NOT_FOUND"
    assert (await acme.delete("a/b/")).code == "FILE_NOT_FOUND"
    assert (await acme.get("a/b/c")).code == "FILE_NOT_FOUND"
    assert (await acme.get("a/b")).body == b"1"
    # Others may have made both of one key.
    await put(served, "acme/a")
    assert (await acme.get("a")).body == b"acme/a"
    assert await acme.names("a/") == ["b"]
    assert [each["kind"] for each in (await acme.get("")).data["entries"]] == ["file", "folder"]


async def test_a_folder_goes_page_by_page_when_that_is_said(
    served: ServedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "_BATCH", 3)
    await put(served, *(f"acme/a/{n}/x" for n in range(7)), "acme/ab", "acme/e/")
    assert (await served.acme.delete("a")).code == "FILE_CONFLICT"
    assert (await served.acme.delete("a?recursive=true")).status == 204
    assert await keys(served) == ["acme/ab", "acme/e/"]
    assert await served.acme.names("e") == []
    # An empty folder, as some clients make it.
    assert (await served.acme.delete("e")).status == 204
    assert (await served.acme.delete("")).code == "FILE_CONFLICT"
    assert await keys(served) == ["acme/ab"]


async def test_of_checkpoints_those_are_there_that_are_whole(
    served: ServedBucket, tmp_path: Path
) -> None:
    acme, job = served.acme, "jobs/job-1"
    (tmp_path / "step-1" / "deep").mkdir(parents=True)
    (tmp_path / "step-1" / "deep" / "model").write_bytes(b"weights")
    (tmp_path / "step-2.pt").write_bytes(b"file")

    def publish() -> None:
        trees = PublishedTrees(served.store, f"acme/{job}/checkpoints/")
        for name in ("step-1", "step-2.pt"):
            with Directory.open(tmp_path) as source:
                trees.publish(source, name, threading.Event(), limits=Limits())

    await asyncio.to_thread(publish)
    await put(
        served,
        f"acme/{job}/checkpoints/half/model",
        f"acme/{job}/checkpoints/half.pt",
        f"acme/{job}/.kept/output/x",
        f"acme/{job}/.kept/.complete/output",
    )
    inside = f"{job}/checkpoints/step-1/deep/model"
    assert (await acme.get(inside)).body == b"weights"
    assert (await acme.get(f"{job}/checkpoints/step-2.pt")).body == b"file"
    assert await acme.names(job) == ["checkpoints"]
    assert await acme.names(f"{job}/checkpoints") == ["step-1", "step-2.pt"]
    assert await acme.names(f"{job}/checkpoints/step-1/deep") == ["model"]
    for hidden in (
        "checkpoints/half",
        "checkpoints/half/model",
        "checkpoints/half.pt",
        "checkpoints/.complete",
        "checkpoints/.complete/step-1",
        ".kept",
        ".kept/output/x",
    ):
        assert (await acme.get(f"{job}/{hidden}")).code == "FILE_NOT_FOUND"
        assert (await acme.put(f"{job}/{hidden}", b"2")).code == "FILE_CONFLICT"
        assert (await acme.delete(f"{job}/{hidden}?recursive=true")).code == "FILE_CONFLICT"
    before = await keys(served)
    for answer in (
        await acme.put(inside, b"2"),
        await acme.put("jobs/job-1", b"2"),
        await acme.delete(inside),
        await acme.delete(f"{job}/checkpoints?recursive=true"),
        await acme.delete(f"{job}?recursive=true"),
        await acme.delete("jobs?recursive=true"),
    ):
        assert (answer.status, answer.code) == (409, "FILE_CONFLICT")
    assert await keys(served) == before
    await acme.put(f"{job}/output/a", b"1")
    assert (await acme.delete(f"{job}/output?recursive=true")).status == 204


async def test_a_large_file_goes_in_parts_and_is_there_when_it_is_whole(
    served: ServedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_LEAST_PART", 5 * MIB)
    content = os.urandom(MIB) * 11 + b"end"
    stored = await served.acme.put("large", content)
    assert stored.status == 201
    assert stored.data["size_bytes"] == len(content)
    answer = await served.acme.get("large")
    assert answer.body == content
    assert (await served.acme.get("large", headers={"Range": "bytes=-3"})).body == b"end"

    async def broken() -> Any:
        yield content[: 7 * MIB]
        raise ConnectionResetError("the client has gone")

    with pytest.raises(aiohttp.ClientError):
        await served.acme.put("large", broken())
    assert (await served.acme.head("large")).headers["ETag"] == stored.headers["ETag"]
    async with asyncio.timeout(60):
        while await uploads_in_parts(served):  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.02)


async def uploads_in_parts(served: ServedBucket) -> list[Any]:
    """Objects in parts that are neither completed nor aborted."""
    call = served.store.connection.call
    answer = await asyncio.to_thread(call, "list_multipart_uploads")
    prefix = served.store.place.prefix
    return [each for each in answer.get("Uploads", ()) if each["Key"].startswith(prefix)]


async def test_a_quota_counts_what_is_there_and_what_comes(serve: Serve) -> None:
    async with serve(quota=100_000) as served:
        await asyncio.to_thread(served.store.write, "acme/jobs/job-1/output/a", bytes(60_000))
        await asyncio.to_thread(served.store.write, "rival/a", bytes(90_000))
        acme = served.acme
        assert (await acme.put("a", bytes(30_000))).status == 201
        full = await acme.put("b", bytes(20_000))
        assert (full.status, full.code) == (507, "QUOTA_EXCEEDED")

        async def unknown() -> Any:
            yield bytes(20_000)

        assert (await acme.put("b", unknown())).code == "QUOTA_EXCEEDED"
        assert await acme.names() == ["a", "jobs"]
        assert (await acme.delete("a")).status == 204
        assert (await acme.put("b", bytes(40_000))).status == 201
        assert (await acme.put("b", bytes(0))).status == 200
        assert (await acme.put("c", bytes(40_000))).status == 201


async def test_a_checkpoint_that_several_nodes_wrote_has_the_files_of_its_mark(
    served: ServedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme, folder = served.acme, "jobs/job-1/checkpoints"
    top = f"acme/{folder}"

    def write() -> None:
        files = []
        for path, part in (("rank-0", "1/0"), ("deep/rank-1", "1/1"), ("deep/rank-2", "2/0-1")):
            key = f"{top}/.parts/{part}/step-1/{path}"
            served.store.write(key, path.encode())
            stored = next(served.store.objects(key))
            files.append([path, stored.size, stored.etag, part])
        served.store.write(f"{top}/.complete/step-1", orjson.dumps({"files": files}))
        # One whose objects are others by now, and marks that are none.
        served.store.write(f"{top}/step-2/model", b"x")
        other = [["model", 1, '"other"']]
        served.store.write(f"{top}/.complete/step-2", orjson.dumps({"files": other}))
        for name, mark in (("a", b"[]"), ("b", b'{"files": [["../x", 1, "e"]]}'), ("c", b"{")):
            served.store.write(f"{top}/.complete/{name}", mark)

    await asyncio.to_thread(write)
    assert await acme.names(folder) == ["step-1", "step-2"]
    assert [each["kind"] for each in (await acme.get(folder)).data["entries"]] == ["folder"] * 2
    first = (await acme.get(f"{folder}?page_size=1")).data
    assert [each["name"] for each in first["entries"]] == ["step-1"]
    rest = await acme.get(f"{folder}?page_token={first['next_page_token']}")
    assert [each["name"] for each in rest.data["entries"]] == ["step-2"]
    inside = (await acme.get(f"{folder}/step-1/")).data["entries"]
    assert [(each["name"], each["kind"]) for each in inside] == [
        ("deep", "folder"),
        ("rank-0", "file"),
    ]
    found: list[str] = []
    token = ""
    while True:
        page = (await acme.get(f"{folder}/step-1/deep?page_size=1&page_token={token}")).data
        found += [each["name"] for each in page["entries"]]
        token = page["next_page_token"]
        if not token:
            break
    assert found == ["rank-1", "rank-2"]
    read = await acme.get(f"{folder}/step-1/deep/rank-2")
    assert read.body == b"deep/rank-2"
    assert (await acme.get(f"{folder}/step-1/rank-0")).headers["ETag"] == inside[1]["etag"]
    for path in ("step-1/rank-1", "step-1/rank-0/", "step-1/dee", "step-2/model", "a", "b/x", "c"):
        assert (await acme.get(f"{folder}/{path}")).code == "FILE_NOT_FOUND"
    monkeypatch.setattr(checkpoints, "_MAX_MARK", 100)
    assert (await acme.get(f"{folder}/step-1/rank-0")).code == "FILE_NOT_SERVED"


async def test_a_store_without_conditional_writes_has_them_checked_before(
    served: ServedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = S3Uploads.put
    asked: list[Condition] = []

    def lacking(self: S3Uploads, key: str, content: bytes, condition: Condition) -> None:
        asked.append(condition)
        if condition.given:
            raise DriveLacks("it is not implemented there")
        put(self, key, content)

    monkeypatch.setattr(S3Uploads, "put", lacking)
    absent = {"If-None-Match": "*"}
    assert (await served.acme.put("a", b"1", headers=absent)).status == 201
    assert [each.given for each in asked] == [True, False]
    assert (await served.acme.put("a", b"2", headers=absent)).code == "PRECONDITION_FAILED"
    assert (await served.acme.get("a")).body == b"1"
