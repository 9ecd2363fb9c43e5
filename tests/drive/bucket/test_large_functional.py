"""Large files to and from a bucket, through a gateway in a process of its own."""

import asyncio
import hashlib
import io
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

pytest.importorskip("s3fs")

from app.drive.bucket.upload_records import Records
from app.objects.s3 import S3Store
from tests.drive.gateways import GatewayProcess
from tests.drive.tus import OCTETS, UPLOADS, metadata
from tests.objects.buckets import Bucket
from tests.replicas import new_key

MIB = 1024 * 1024
BLOCK = os.urandom(MIB)
TUS = {"Tus-Resumable": "1.0.0"}


def peak(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def gateway(dsn: str, bucket: Bucket, prefix: str, folder: Path, **settings: str) -> GatewayProcess:
    """One in front of the bucket."""
    return GatewayProcess(
        dsn,
        folder,
        folder / "gateway.log",
        SCAIMIND_DRIVE_DIR="",
        SCAIMIND_DRIVE_URL=f"s3://drive/{prefix}",
        SCAIMIND_DRIVE_ENDPOINT=f"http://127.0.0.1:{bucket.port}",
        SCAIMIND_DRIVE_CREDENTIALS_FILE=str(bucket.credentials),
        SCAIMIND_DRIVE_CALL_TIMEOUT="60",
        **settings,
    )


async def blocks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield BLOCK


@pytest.mark.slow
async def test_files_of_any_size_take_the_same_memory(
    migrated_dsn: str, bucket: Bucket, prefix: str, tmp_path: Path
) -> None:
    async with (
        gateway(migrated_dsn, bucket, prefix, tmp_path) as served,
        aiohttp.ClientSession() as http,
    ):
        key = await new_key(migrated_dsn, tenant="acme")
        headers = {"Authorization": f"Bearer {key.secret}"}

        async def there_and_back(count: int) -> None:
            url = f"{served.url}/v1/drive/large"
            async with http.put(url, data=blocks(count), headers=headers) as answer:
                assert answer.status in (200, 201), await answer.text()
            digest = hashlib.sha256()
            async with http.get(url, headers=headers) as answer:
                async for data in answer.content.iter_chunked(MIB):
                    digest.update(data)
            expected = hashlib.sha256()
            for _ in range(count):
                expected.update(BLOCK)
            assert digest.digest() == expected.digest()

        await there_and_back(40)
        before = peak(served.pid)
        await there_and_back(400)
        # A part, for each of some threads: not the file.
        assert peak(served.pid) - before < 128 * MIB


@pytest.mark.slow
async def test_an_upload_goes_on_after_the_gateway_was_killed(
    migrated_dsn: str, bucket: Bucket, prefix: str, store: S3Store, tmp_path: Path
) -> None:
    content = BLOCK * 20
    async with (
        gateway(migrated_dsn, bucket, prefix, tmp_path) as served,
        aiohttp.ClientSession() as http,
    ):
        key = await new_key(migrated_dsn, tenant="acme")
        headers = {"Authorization": f"Bearer {key.secret}", **TUS}
        begun = {"Upload-Length": str(len(content)), "Upload-Metadata": metadata(path="a")}
        async with http.post(f"{served.url}{UPLOADS}", headers=headers | begun) as answer:
            assert answer.status == 201, await answer.text()
            url = served.url + answer.headers["Location"]
        records = Records(store, "acme")

        async def endless() -> AsyncIterator[bytes]:
            yield content[: 12 * MIB]
            await asyncio.Event().wait()

        async def kill() -> None:
            async with asyncio.timeout(60):
                while not (  # noqa: ASYNC110  # nothing tells of it
                    await asyncio.to_thread(records.read, url.rpartition("/")[2])
                )[0].parts:
                    await asyncio.sleep(0.02)
            await served.kill_and_start()

        killing = asyncio.create_task(kill())
        piece = {"Content-Type": OCTETS, "Upload-Offset": "0"}
        with pytest.raises(aiohttp.ClientError):
            async with http.patch(url, data=endless(), headers=headers | piece):
                pass
        await killing
        async with http.head(url, headers=headers) as answer:
            offset = int(answer.headers["Upload-Offset"])
        # A whole part.
        assert offset == 8 * MIB
        piece["Upload-Offset"] = str(offset)
        async with http.patch(
            url, data=io.BytesIO(content[offset:]), headers=headers | piece
        ) as answer:
            assert answer.status == 204, await answer.text()
        async with http.get(f"{served.url}/v1/drive/a", headers=headers) as answer:
            assert await answer.read() == content
