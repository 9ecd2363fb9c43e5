"""Objects in S3 that are written in parts, and with conditions."""

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from typing_extensions import override

from app.objects.s3_connection import S3Connection
from app.objects.s3_entries import not_of_s3
from app.objects.store import ChangedObject, ObjectStore
from app.objects.uploads import ANY_OBJECT, Condition, PartedUploads, StoredPart

#: S3's limits of a part: its number, and its bytes.
MOST_PARTS: Final = 10_000
LEAST_PART: Final = 5 * 1024 * 1024
_LARGEST_PART: Final = 5 * 1024**3
#: What a store may call an upload.
_UPLOAD: Final = re.compile(r"[\x21-\x7e]{1,2048}")
_ETAG: Final = re.compile(r"[\x20-\x7e]{1,256}")
_DIGEST: Final = re.compile(r"[0-9a-f]{32}")
_TYPE: Final = "application/octet-stream"


class S3Uploads(PartedUploads):
    """Made by the store that the objects are of."""

    def __init__(self, connection: S3Connection, store: ObjectStore) -> None:
        self._connection = connection
        self._store = store

    @override
    def put(self, key: str, content: bytes, condition: Condition = ANY_OBJECT) -> None:
        try:
            self._connection.call(
                "put_object",
                Key=self._key(key),
                Body=content,
                ContentType=_TYPE,
                **_asked(condition),
            )
        except (ChangedObject, FileNotFoundError):
            if not condition.given:
                raise
            # What is sent again because its answer was lost finds itself there.
            digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
            if not self._is_there(key, f'"{digest}"'):
                raise ChangedObject from None

    @override
    def begin(self, key: str) -> str:
        answer = self._connection.call(
            "create_multipart_upload", Key=self._key(key), ContentType=_TYPE
        )
        upload = answer.get("UploadId")
        if not isinstance(upload, str) or not _UPLOAD.fullmatch(upload):
            raise not_of_s3()
        return upload

    @override
    def send(self, key: str, upload: str, number: int, content: bytes) -> StoredPart:
        answer = self._connection.call(
            "upload_part",
            Key=self._key(key),
            UploadId=upload,
            PartNumber=number,
            Body=content,
        )
        return part_of({**answer, "PartNumber": number, "Size": len(content)})

    @override
    def parts(self, key: str, upload: str) -> list[StoredPart]:
        found: list[StoredPart] = []
        while len(found) < MOST_PARTS:
            last = found[-1].number if found else 0
            answer = self._connection.call(
                "list_parts", Key=self._key(key), UploadId=upload, PartNumberMarker=last
            )
            page = [part_of(each) for each in answer.get("Parts", ())]
            # In order, and none twice: it ends.
            if any(each.number <= last for each in page) or len(page) > MOST_PARTS:
                raise not_of_s3()
            found += sorted(page, key=lambda each: each.number)
            if not answer.get("IsTruncated") or not page:
                break
        return found

    @override
    def complete(
        self,
        key: str,
        upload: str,
        parts: Sequence[StoredPart],
        condition: Condition = ANY_OBJECT,
    ) -> None:
        listed = [{"PartNumber": each.number, "ETag": each.etag} for each in parts]
        try:
            self._connection.call(
                "complete_multipart_upload",
                Key=self._key(key),
                UploadId=upload,
                MultipartUpload={"Parts": listed},
                **_asked(condition),
            )
        except (ChangedObject, FileNotFoundError):
            # As above; of an upload whose answer was lost nothing is left.
            if not self._is_there(key, _etag_of(parts)):
                raise

    @override
    def abort(self, key: str, upload: str) -> None:
        with suppress(FileNotFoundError):
            self._connection.call("abort_multipart_upload", Key=self._key(key), UploadId=upload)

    def _key(self, key: str) -> str:
        return self._connection.prefix + key

    def _is_there(self, key: str, etag: str) -> bool:
        found = next(self._store.objects(key, limit=1), None)
        return found is not None and (found.key, found.etag) == (key, etag)


def _asked(condition: Condition) -> dict[str, str]:
    if condition.absent:
        return {"IfNoneMatch": "*"}
    return {"IfMatch": condition.etag} if condition.etag else {}


def _etag_of(parts: Sequence[StoredPart]) -> str:
    """Return the version of an object in parts, as S3 makes it of the parts' digests; of what is
    encrypted it makes another one."""
    digests = [each.etag.strip('"') for each in parts]
    if not all(map(_DIGEST.fullmatch, digests)):
        return ""
    joined = hashlib.md5(bytes.fromhex("".join(digests)), usedforsecurity=False).hexdigest()
    return f'"{joined}-{len(parts)}"'


def part_of(entry: Any) -> StoredPart:
    """Read what a store says of a part. Raises DriveUnavailable."""
    number, size, etag = (entry.get(name) for name in ("PartNumber", "Size", "ETag"))
    if (
        type(number) is not int
        or not 0 < number <= MOST_PARTS
        or type(size) is not int
        or not 0 <= size <= _LARGEST_PART
        or not isinstance(etag, str)
        or not _ETAG.fullmatch(etag)
    ):
        raise not_of_s3()
    return StoredPart(number, size, etag)
