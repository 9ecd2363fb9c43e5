"""The object store that a URL names."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from app.objects.store import DriveRefused, ObjectStore

_SCHEME: Final = "s3://"


def open_object_store(
    url: str,
    *,
    endpoint: str,
    credentials: Path | None,
    patience: float | None = None,
    connections: int | None = None,
) -> ObjectStore:
    """Return the store of `s3://<bucket>/<prefix>`, for the caller to close; connects to nothing
    yet. Raises DriveRefused.

    `patience` is how many seconds a call waits for the store to say something,
    for one that is asked again by who waits for it, and `connections` how many
    it may have at a time; unless given, as jobs want it. Blocks while it
    imports.
    """
    if find_spec("s3fs") is None:
        raise DriveRefused(
            "s3fs is not installed there: install the extra `s3` (or `ray`, which has it)"
        )
    # Its import takes half a second, and only who has such a drive has it.
    from app.objects.s3 import S3Store
    from app.objects.s3_connection import S3Place

    bucket, _, prefix = url.removeprefix(_SCHEME).partition("/")
    place = S3Place(
        bucket,
        f"{prefix.strip('/')}/" if prefix.strip("/") else "",
        endpoint=endpoint,
        credentials=credentials,
    )
    if patience is not None:
        place = replace(place, patience=(min(patience, 5.0), patience), attempts=2, rounds=1)
    if connections is not None:
        place = replace(place, connections=connections)
    return S3Store(place)
