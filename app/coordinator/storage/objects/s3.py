"""Objects in S3, or in what speaks its protocol, by s3fs."""

import configparser
import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, cast

import fsspec.asyn
import s3fs
from botocore.exceptions import BotoCoreError, ClientError
from fsspec.callbacks import Callback
from s3fs.core import S3_RETRYABLE_ERRORS
from typing_extensions import override

from app.coordinator.storage.objects.s3_errors import translated
from app.coordinator.storage.objects.store import (
    ChangedObject,
    DriveRefused,
    Listing,
    ObjectStore,
    StoredObject,
)
from app.files.copying import Abandoned
from app.files.directory import LimitReached

#: Bytes that are asked for at once, and of a part that is sent.
_BLOCK: Final = 16 * 1024 * 1024
#: S3's limits: parts of one object, keys of one page, and keys that one call removes.
_MOST_PARTS: Final = 10_000
_PAGE: Final = 1000
#: Parts of one object that are sent at the same time; each takes its size in memory.
_PARALLEL: Final = 4
#: Bytes of a file with credentials.
_MAX_CREDENTIALS: Final = 64 * 1024

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class S3Place:
    """Where the objects are, and with which credentials they are reached."""

    bucket: str
    #: Before all keys; empty, or it ends with a slash.
    prefix: str
    #: Of a store that is not Amazon's.
    endpoint: str = ""
    #: In the form of ~/.aws/credentials, profile `default`; else what botocore finds.
    credentials: Path | None = None
    #: Seconds to connect, and to wait for something to come.
    patience: tuple[float, float] = (10.0, 60.0)
    #: Of a request that the store does not answer as it should.
    attempts: int = 4


class S3Store(ObjectStore):
    """Keeps nothing of what it was told: others write to the bucket."""

    def __init__(self, place: S3Place) -> None:
        """Connects to nothing yet. Raises DriveRefused if the file with credentials cannot be
        used."""
        self.place = place
        self._bucket = place.bucket
        self._prefix = place.prefix
        connect, read = place.patience
        config: dict[str, Any] = {
            "connect_timeout": connect,
            "read_timeout": read,
            "retries": {"mode": "standard", "max_attempts": place.attempts},
        }
        if place.endpoint:
            # Others have neither a name for each bucket nor Amazon's newer checksums.
            config["s3"] = {"addressing_style": "path"}
            config["request_checksum_calculation"] = "when_required"
            config["response_checksum_validation"] = "when_required"
        self._files = s3fs.S3FileSystem(
            **_credentials(place.credentials),
            endpoint_url=place.endpoint or None,
            config_kwargs=config,
            max_concurrency=_PARALLEL,
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        # Above those: of what breaks off in the middle of an answer.
        self._files.retries = 2

    @override
    def check(self) -> None:
        next(self.objects("", limit=1), None)

    @override
    def objects(self, prefix: str, *, limit: int | None = None) -> Iterator[StoredObject]:
        left = limit
        for page in self._pages(prefix, page=_PAGE if left is None else min(left, _PAGE)):
            for entry in page.get("Contents", ()):
                if left == 0:
                    return
                if left is not None:
                    left -= 1
                yield self._found(entry)

    @override
    def listing(self, prefix: str, *, limit: int) -> Listing:
        objects: list[StoredObject] = []
        folders: list[str] = []
        for page in self._pages(prefix, page=min(limit + 1, _PAGE), Delimiter="/"):
            found = map(self._found, page.get("Contents", ()))
            # An object of the prefix itself is what some clients make for an empty folder.
            objects += (each for each in found if each.key != prefix)
            for entry in page.get("CommonPrefixes", ()):
                key = entry["Prefix"].removeprefix(self._prefix)
                folders.append(key.removeprefix(prefix).removesuffix("/"))
            if len(objects) + len(folders) > limit:
                raise LimitReached(f"there are more than {limit} entries")
        return Listing(objects, folders)

    @override
    def read(self, key: str, *, limit: int) -> bytes:
        found = next(self.objects(key, limit=1), None)
        if found is None or found.key != key:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if found.size > limit:
            raise LimitReached(f"it has more than {limit} bytes")
        content: bytes = self._call(lambda: self._files.cat_file(self._path(key)))
        if len(content) > limit:
            raise LimitReached(f"it has more than {limit} bytes")
        return content

    @override
    def open(self, found: StoredObject) -> BinaryIO:
        opened = self._call(
            lambda: self._files.open(self._path(found.key), "rb", block_size=_BLOCK)
        )
        if opened.details["ETag"] != found.etag:
            raise ChangedObject
        return cast(BinaryIO, _Reader(opened, self._bucket))

    @override
    def fetch(self, found: StoredObject, target: int, abandoned: threading.Event) -> None:
        written = 0
        with self.open(found) as content:
            while written < found.size:
                if abandoned.is_set():
                    raise Abandoned
                block = content.read(min(_BLOCK, found.size - written))
                if not block:
                    raise ChangedObject
                _write(target, block)
                written += len(block)

    @override
    def write(self, key: str, content: bytes) -> None:
        self._call(lambda: self._files.pipe_file(self._path(key), content))

    @override
    def upload(self, key: str, source: int, abandoned: threading.Event) -> StoredObject:
        size = os.fstat(source).st_size
        part = max(_BLOCK, -(-size // _MOST_PARTS))
        self._call(
            lambda: self._files.put_file(
                # The very file that is held, whatever is at its path by now.
                f"/proc/self/fd/{source}",
                self._path(key),
                callback=_AbandonedCheck(abandoned),
                chunksize=part,
                ContentType="application/octet-stream",
            )
        )
        if (stored := next(self.objects(key, limit=1), None)) is None or (
            (stored.key, stored.size) != (key, size)
        ):
            raise ChangedObject
        return stored

    @override
    def remove(self, keys: Sequence[str]) -> None:
        for at in range(0, len(keys), _PAGE):
            names = [{"Key": self._prefix + key} for key in keys[at : at + _PAGE]]
            answer = self._call(
                lambda names=names: self._files.call_s3(  # type: ignore[misc]
                    "delete_objects", Bucket=self._bucket, Delete={"Objects": names, "Quiet": True}
                )
            )
            if errors := answer.get("Errors"):
                raise DriveRefused(f"the drive does not remove objects ({errors[0].get('Code')})")

    @override
    def close(self) -> None:
        client = self._files._s3
        if client is not None:
            fsspec.asyn.sync(self._files.loop, client.close)

    def _pages(self, prefix: str, *, page: int, **asked: Any) -> Iterator[dict[str, Any]]:
        more: dict[str, str] = {}
        while True:
            answer = self._call(
                lambda more=more: self._files.call_s3(  # type: ignore[misc]
                    "list_objects_v2",
                    Bucket=self._bucket,
                    Prefix=self._prefix + prefix,
                    MaxKeys=page,
                    **asked,
                    **more,
                )
            )
            yield answer
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    def _found(self, entry: dict[str, Any]) -> StoredObject:
        return StoredObject(
            key=entry["Key"].removeprefix(self._prefix),
            size=entry["Size"],
            etag=entry["ETag"],
            modified=int(entry["LastModified"].timestamp() * 1_000_000),
        )

    def _path(self, key: str) -> str:
        return f"{self._bucket}/{self._prefix}{key}"

    def _call(self, do: Callable[[], _T]) -> _T:
        with _failures(self._bucket):
            return do()


@contextmanager
def _failures(bucket: str) -> Iterator[None]:
    """Say what the store answers, or that it does not, as the errors of `ObjectStore`."""
    try:
        yield
    except (Abandoned, ChangedObject, DriveRefused, LimitReached):
        raise
    except (OSError, BotoCoreError, ClientError, *S3_RETRYABLE_ERRORS) as error:
        # Without the cause: its text may have a key's id in it, and reaches the log.
        raise translated(error, bucket) from None


class _Reader:
    """An open object whose failures are those of `ObjectStore`. A context manager."""

    def __init__(self, opened: Any, bucket: str) -> None:
        self._opened = opened
        self._bucket = bucket

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)

    def read(self, size: int = -1) -> bytes:
        with _failures(self._bucket):
            content: bytes = self._opened.read(size)
            return content


class _AbandonedCheck(Callback):  # type: ignore[misc]  # fsspec has no types
    """Ends an upload that nobody wants between two of its parts."""

    def __init__(self, abandoned: threading.Event) -> None:
        super().__init__()
        self._abandoned = abandoned

    @override
    def relative_update(self, inc: int = 1) -> None:
        if self._abandoned.is_set():
            raise Abandoned


def _credentials(path: Path | None) -> dict[str, str]:
    """Return what a file of credentials has. Raises DriveRefused; no message has its content."""
    if path is None:
        return {}
    parser = configparser.RawConfigParser()
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_string(file.read(_MAX_CREDENTIALS))
        found = parser["default"]
        values = {
            "key": found["aws_access_key_id"],
            "secret": found["aws_secret_access_key"],
        }
    except OSError as error:
        raise DriveRefused(
            f"the file with the drive's credentials cannot be read: {error.strerror}"
        ) from None
    except (KeyError, UnicodeDecodeError, configparser.Error):
        raise DriveRefused(
            "the file with the drive's credentials is not of the form of ~/.aws/credentials with a"
            " profile [default]"
        ) from None
    if token := found.get("aws_session_token"):
        values["token"] = token
    return values


def _write(target: int, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(target, rest) :]
