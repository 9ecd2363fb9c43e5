"""A file brought to S3, several of its parts at a time."""

import asyncio
import io
import os
import threading
from contextlib import suppress
from typing import Final

from app.files.copying import Abandoned
from app.objects.s3_connection import S3Connection
from app.objects.s3_uploads import S3Uploads, part_of
from app.objects.store import ChangedObject
from app.objects.uploads import StoredPart

#: Parts of one file that are sent at the same time; each takes its size in memory.
_PARALLEL: Final = 4


def send_file(
    connection: S3Connection,
    uploads: S3Uploads,
    key: str,
    source: int,
    abandoned: threading.Event,
    *,
    size: int,
    part: int,
) -> None:
    """Write an object of the first `size` bytes of a descriptor, in parts of `part` bytes.

    What breaks off leaves nothing. Raises ChangedObject if the file is shorter,
    Abandoned between two parts, and as every call of the store. Blocks.
    """
    if abandoned.is_set():
        raise Abandoned
    if size <= part:
        uploads.put(key, _read(source, 0, size))
        return
    upload = uploads.begin(key)
    try:
        sending = _Sending(connection, key, upload, source, abandoned, size=size, part=part)
        uploads.complete(key, upload, connection.wait(sending.all))
    except BaseException:
        # The reason is the first failure.
        with suppress(OSError):
            uploads.abort(key, upload)
        raise


class _Sending:
    """The parts of one file. On the connections' event loop."""

    def __init__(
        self,
        connection: S3Connection,
        key: str,
        upload: str,
        source: int,
        abandoned: threading.Event,
        *,
        size: int,
        part: int,
    ) -> None:
        self._connection = connection
        self._key = connection.prefix + key
        self._upload = upload
        self._source = source
        self._abandoned = abandoned
        self._size = size
        self._part = part
        self._numbers = iter(range(1, -(-size // part) + 1))
        self._sent: list[StoredPart] = []

    async def all(self) -> list[StoredPart]:
        """Send all parts; when one fails, the others end before this does."""
        tasks = [
            asyncio.create_task(self._some(), name=f"s3-part-{number}")
            for number in range(_PARALLEL)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return sorted(self._sent, key=lambda each: each.number)

    async def _some(self) -> None:
        for number in self._numbers:
            if self._abandoned.is_set():
                raise Abandoned
            offset = (number - 1) * self._part
            content = _read(self._source, offset, min(self._part, self._size - offset))
            answer = await self._connection.files._call_s3(
                "upload_part",
                Bucket=self._connection.bucket,
                Key=self._key,
                UploadId=self._upload,
                PartNumber=number,
                Body=io.BytesIO(content),
            )
            self._sent.append(part_of({**answer, "PartNumber": number, "Size": len(content)}))


def _read(source: int, offset: int, size: int) -> bytes:
    content = os.pread(source, size, offset)
    if len(content) != size:
        raise ChangedObject
    return content
