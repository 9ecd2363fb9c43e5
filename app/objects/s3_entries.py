"""What S3 says of an object, checked: whoever answers there is not this program."""

from datetime import UTC, datetime
from typing import Any, Final

from app.objects.store import DriveUnavailable, KeyFolder, StoredObject

#: Bytes of a key of S3, and of an object: its limit is 50 TiB.
MAX_KEY: Final = 1024
_MAX_SIZE: Final = 2**53
#: Characters of a version; Amazon's have 34 to 38.
_MAX_ETAG: Final = 256
#: Years that a time can be of.
_YEARS: Final = range(1970, 3000)


def object_of(entry: Any, prefix: str) -> StoredObject:
    """Read an entry of a listing; its key is told without the prefix. Raises DriveUnavailable."""
    key = _key(entry, "Key", prefix)
    size, etag, modified = (entry.get(name) for name in ("Size", "ETag", "LastModified"))
    if (
        type(size) is not int
        or not 0 <= size <= _MAX_SIZE
        or not isinstance(etag, str)
        or not 0 < len(etag) <= _MAX_ETAG
        or not (etag.isascii() and etag.isprintable())
        or not isinstance(modified, datetime)
        or modified.year not in _YEARS
    ):
        raise not_of_s3()
    moment = modified if modified.tzinfo else modified.replace(tzinfo=UTC)
    return StoredObject(key, size, etag, int(moment.timestamp() * 1_000_000))


def folder_of(entry: Any, prefix: str) -> KeyFolder:
    """Read a common prefix of a listing. Raises DriveUnavailable."""
    key = _key(entry, "Prefix", prefix)
    if not key.endswith("/"):
        raise not_of_s3()
    return KeyFolder(key)


def not_of_s3() -> DriveUnavailable:
    """Return the failure of a store whose answer is none of S3: something else answers there."""
    return DriveUnavailable("its answer is not that of an object store")


def _key(entry: Any, name: str, prefix: str) -> str:
    key = entry.get(name) if isinstance(entry, dict) else None
    if (
        not isinstance(key, str)
        or not key.startswith(prefix)
        # More bytes than characters; a text that is no UTF-8 has no bytes at all.
        or len(key.encode("utf-8", "replace")) > MAX_KEY
    ):
        raise not_of_s3()
    return key.removeprefix(prefix)
