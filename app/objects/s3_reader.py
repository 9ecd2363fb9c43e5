"""A part of an object in S3, as it comes, from one request; from another where that one breaks."""

from typing import Any, Final

from typing_extensions import override

from app.objects.s3_connection import S3Connection
from app.objects.s3_entries import not_of_s3
from app.objects.store import ChangedObject, DriveUnavailable, ObjectReader, StoredObject

#: Requests one after the other that bring nothing before it is given up.
_TRIES: Final = 3


class S3Reader(ObjectReader):
    """For one thread at a time; it may be closed in any."""

    def __init__(
        self, connection: S3Connection, found: StoredObject, start: int, stop: int
    ) -> None:
        self._connection = connection
        self._found = found
        self._at = start
        self._stop = stop
        self._body: Any = None

    @override
    def read(self, size: int) -> bytes:
        failed: DriveUnavailable | None = None
        for _ in range(_TRIES):
            if self._at == self._stop:
                return b""
            try:
                block = self._next(min(size, self._stop - self._at))
            except DriveUnavailable as error:
                failed = error
            else:
                if block:
                    self._at += len(block)
                    return block
            # A client that is slow has the store end the connection.
            self.close()
        raise failed or not_of_s3()

    @override
    def close(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            self._connection.soon(body.close)

    def _next(self, size: int) -> bytes:
        if self._body is None:
            self._body = self._opened()
        block: bytes = self._connection.wait(_gathered, self._body, size)
        return block

    def _opened(self) -> Any:
        found = self._found
        answer = self._connection.call(
            "get_object",
            Key=self._connection.prefix + found.key,
            IfMatch=found.etag,
            Range=f"bytes={self._at}-{self._stop - 1}",
        )
        body = answer["Body"]
        if answer.get("ETag") != found.etag or answer.get("ContentLength") != self._stop - self._at:
            self._connection.soon(body.close)
            if answer.get("ETag") != found.etag:
                raise ChangedObject
            raise not_of_s3()
        return body


async def _gathered(body: Any, size: int) -> bytes:
    """Read `size` bytes, less at the end: what comes at once is a few packets."""
    gathered = bytearray()
    while len(gathered) < size and (block := await body.read(size - len(gathered))):
        gathered += block
    return bytes(gathered)
