"""The object store that a URL names."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from app.coordinator.storage.objects.store import DriveRefused, ObjectStore

_SCHEME: Final = "s3://"


def open_object_store(url: str, *, endpoint: str, credentials: Path | None) -> ObjectStore:
    """Return the store of `s3://<bucket>/<prefix>`, for the caller to close; connects to nothing
    yet. Raises DriveRefused."""
    if find_spec("s3fs") is None:
        raise DriveRefused(
            "s3fs is not installed there: install the extra `s3` (or `ray`, which has it)"
        )
    # Its import takes half a second, and only who has such a drive has it.
    from app.coordinator.storage.objects.s3 import S3Place, S3Store

    bucket, _, prefix = url.removeprefix(_SCHEME).partition("/")
    place = S3Place(
        bucket,
        f"{prefix.strip('/')}/" if prefix.strip("/") else "",
        endpoint=endpoint,
        credentials=credentials,
    )
    return S3Store(place)
