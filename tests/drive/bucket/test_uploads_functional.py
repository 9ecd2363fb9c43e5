"""Resumable uploads to a bucket."""

import asyncio
import base64
import hashlib
import os
import time
from typing import Any

import aiohttp
import pytest

pytest.importorskip("s3fs")

from app.api.app_keys import UPLOADS
from app.drive.bucket import writing
from app.drive.bucket.upload_records import Records
from app.drive.bucket.uploads import BucketUploads
from tests.drive.bucket.conftest import Serve, ServedBucket
from tests.drive.bucket.test_files_functional import keys, uploads_in_parts
from tests.drive.tus import Tus

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As small as S3 takes them."""
    monkeypatch.setattr(writing, "_LEAST_PART", 5 * MIB)
    monkeypatch.setattr(writing, "_PART", 5 * MIB)


async def test_an_upload_comes_in_pieces_of_any_size(served: ServedBucket) -> None:
    tus = Tus(served.acme)
    content = os.urandom(MIB) * 12 + b"end"
    url = await tus.started("data/a", len(content))
    assert await served.acme.names() == []
    offset = 0
    for size in (1, 2 * MIB, 4 * MIB, 5 * MIB, 3):
        assert (await tus.patch(url, offset, content[offset : offset + size])).status == 204
        offset += size
        assert await tus.offset(url) == offset
    # What one replica has got, another goes on with.
    assert (await tus.patch(url, 0, b"x")).code == "UPLOAD_OFFSET_CONFLICT"
    assert (await tus.patch(url, offset, bytes(2 * MIB))).code == "PAYLOAD_TOO_LARGE"
    done = await tus.patch(url, offset, content[offset:])
    assert done.status == 204
    read = await served.acme.get("data/a")
    assert read.body == content
    assert read.headers["ETag"] == done.headers["ETag"]
    assert await tus.offset(url) == len(content)
    # Nothing of it is left but that it is finished.
    [left] = await keys(served, ".uploads/")
    assert left.startswith(".uploads/acme/done/")
    assert await uploads_in_parts(served) == []
    assert (await tus.ask("DELETE", url)).status == 204
    assert (await tus.head(url)).status == 404


async def test_small_files_and_those_of_unknown_length_are_uploaded_too(
    served: ServedBucket,
) -> None:
    tus = Tus(served.acme)
    await tus.started("empty", 0)
    assert (await served.acme.get("empty")).body == b""
    await tus.started("small", 5, data=b"small")
    assert (await served.acme.get("small")).body == b"small"
    url = await tus.started("later", None, data=b"1" * (6 * MIB))
    assert (await tus.patch(url, 6 * MIB, b"2", **{"Upload-Length": str(6 * MIB + 1)})).status
    assert (await served.acme.get("later")).body == b"1" * (6 * MIB) + b"2"


async def test_what_has_come_stays_when_the_connection_breaks(served: ServedBucket) -> None:
    tus = Tus(served.acme)
    content = os.urandom(MIB) * 8
    url = await tus.started("a", len(content))
    records = Records(served.store, "acme")

    async def broken() -> Any:
        yield content[: 6 * MIB]
        async with asyncio.timeout(60):
            while not (  # noqa: ASYNC110  # nothing tells of it
                await asyncio.to_thread(records.read, url.rpartition("/")[2])
            )[0].parts:
                await asyncio.sleep(0.02)
        raise ConnectionResetError("the client has gone")

    with pytest.raises(aiohttp.ClientError):
        await tus.patch(url, 0, broken())
    offset = await tus.offset(url)
    assert 5 * MIB <= offset <= 6 * MIB
    assert (await tus.patch(url, offset, content[offset:])).status == 204
    assert (await served.acme.get("a")).body == content


async def test_a_piece_counts_when_its_checksum_matches(served: ServedBucket) -> None:
    tus = Tus(served.acme)
    content = os.urandom(MIB) * 8
    url = await tus.started("a", len(content))
    assert (await tus.patch(url, 0, content[:MIB])).status == 204
    digest = base64.b64encode(hashlib.sha256(content[MIB:]).digest()).decode()
    checksum = {"Upload-Checksum": f"sha256 {digest}"}
    # It fills a part, and does not count.
    wrong = await tus.patch(url, MIB, bytes(6 * MIB), **checksum)
    assert wrong.code == "UPLOAD_CHECKSUM_MISMATCH"
    assert await tus.offset(url) == MIB
    assert (await tus.patch(url, MIB, content[MIB:], **checksum)).status == 204
    assert (await served.acme.get("a")).body == content


async def test_conditions_are_checked_when_the_file_is_put_into_its_place(
    served: ServedBucket,
) -> None:
    tus = Tus(served.acme)
    absent = {"If-None-Match": "*"}
    for path, size in (("small", 5), ("large", 6 * MIB)):
        url = await tus.started(path, size, headers=absent)
        assert (await tus.patch(url, 0, bytes(size - 1))).status == 204
        await served.acme.put(path, b"another")
        assert (await tus.patch(url, size - 1, b"x")).code == "PRECONDITION_FAILED"
        assert (await served.acme.get(path)).body == b"another"
        refused = await tus.create(path, 5, headers=absent)
        assert refused.code == "PRECONDITION_FAILED"
        # It only lacks its place.
        await served.acme.delete(path)
        assert await tus.offset(url) == size
        assert (await served.acme.get(path)).body == bytes(size - 1) + b"x"


async def test_an_upload_that_is_ended_or_expires_leaves_nothing(serve: Serve) -> None:
    async with serve(upload_lifetime=3600.0) as served:
        tus = Tus(served.acme)
        urls = [await tus.started(f"a{n}", 8 * MIB, data=bytes(6 * MIB)) for n in range(2)]
        assert len(await uploads_in_parts(served)) == 2
        assert (await tus.ask("DELETE", urls[0])).status == 204
        assert len(await uploads_in_parts(served)) == 1
        uploads = served.gateway.app[UPLOADS]
        assert isinstance(uploads, BucketUploads)
        assert await asyncio.to_thread(uploads.clear, "acme") == 0
        assert await tus.offset(urls[1]) == 6 * MIB
        later = time.time() + 3601
        assert await asyncio.to_thread(uploads.clear, "acme", now=later) == 1
        assert (await tus.head(urls[1])).status == 404
        assert await uploads_in_parts(served) == []
        assert await keys(served) == []


async def test_another_s_upload_and_a_damaged_one_are_not_there(served: ServedBucket) -> None:
    tus = Tus(served.acme)
    url = await tus.started("a", 5)
    rival = Tus(await served.client("rival"))
    assert (await rival.head(url)).status == 404
    assert (await rival.patch(url, 0, b"12345")).code == "UPLOAD_NOT_FOUND"
    upload_id = url.rpartition("/")[2]
    for content in (
        b"",
        b"[]",
        b'{"info": {}}',
        b'{"info": 1, "part": 1, "upload": "", "parts": 0}',
    ):
        key = f".uploads/acme/open/{upload_id}/record"
        await asyncio.to_thread(served.store.write, key, content)
        assert (await tus.head(url)).status == 404


async def test_unfinished_uploads_are_bounded_and_count(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.drive.bucket.upload_records.MOST_UPLOADS", 2)
    async with serve(quota=20_000) as served:
        tus = Tus(served.acme)
        url = await tus.started("a", 15_000)
        assert (await tus.create("b", 15_000)).code == "QUOTA_EXCEEDED"
        assert (await served.acme.put("b", bytes(15_000))).code == "QUOTA_EXCEEDED"
        await tus.started("b", 1)
        assert (await tus.create("c", 1)).code == "RATE_LIMITED"
        assert (await tus.patch(url, 0, bytes(15_000))).status == 204
        assert (await served.acme.put("d", bytes(15_000))).code == "QUOTA_EXCEEDED"
        records = Records(served.store, "acme")
        assert len(await asyncio.to_thread(lambda: list(records.unfinished()))) == 1
