"""How an object gets under its key: in parts that nobody sees, and then at once.

The functions block, for threads, and raise OSError and `ApiError`.
"""

from collections.abc import Callable
from typing import Final

from app.drive.bucket.keys import key_of, stat
from app.drive.bucket.tree import conflicts, version_of
from app.drive.drive import Stored
from app.drive.paths import DrivePath
from app.drive.problems import busy
from app.drive.versions import Preconditions
from app.errors import PAYLOAD_TOO_LARGE, ApiError
from app.objects.store import DriveLacks, ObjectStore
from app.objects.uploads import ANY_OBJECT, Condition

_MIB: Final = 1024 * 1024
#: Bytes of a part, each of which is in memory until it is sent: of a file of unknown length, and
#: of any other at least and at most. All parts but the last have the same size: some stores
#: want that.
_PART: Final = 16 * _MIB
_LEAST_PART: Final = 8 * _MIB
_LARGEST_PART: Final = 64 * _MIB
#: Parts of an object, as S3 has it.
_MOST_PARTS: Final = 10_000


def part_size(size: int | None) -> int:
    """Return how large the parts of a file are. Raises `ApiError` if it is too large for a
    store."""
    if size is None:
        return _PART
    part = max(_LEAST_PART, -(-size // _MOST_PARTS // _MIB) * _MIB)
    if part > _LARGEST_PART:
        raise too_large(_LARGEST_PART)
    return part


def too_large(part: int) -> ApiError:
    """Return the refusal of a file that has more than fits into parts of this size."""
    return ApiError(
        PAYLOAD_TOO_LARGE,
        f"This drive takes files of up to {_MOST_PARTS * part} bytes like this"
        + ("." if part == _LARGEST_PART else "; larger ones if their length is sent before."),
    )


def check_part(number: int, part: int) -> None:
    """Raise `ApiError` if an object has no part of this number, which begins with 1."""
    if number > _MOST_PARTS:
        raise too_large(part)


def check_destination(
    store: ObjectStore, tenant_id: str, path: DrivePath, preconditions: Preconditions
) -> None:
    """Raise `ApiError` if a file could not be put there now."""
    found = stat(store, key_of(store, tenant_id, path))
    conflicts(store, tenant_id, path)
    preconditions.check(None if found is None else version_of(found))


def placed(
    store: ObjectStore,
    tenant_id: str,
    path: DrivePath,
    preconditions: Preconditions,
    put: Callable[[Condition], None],
) -> Stored:
    """Have `put` put an object under its key, if what is there is as demanded.

    The store is told the condition, where there is one: other replicas may
    write there, too. A store that knows no conditions is not: then this
    process alone heeds them.
    """
    key = key_of(store, tenant_id, path)
    conflicts(store, tenant_id, path)
    found = stat(store, key)
    before = None if found is None else version_of(found)
    preconditions.check(before)
    condition = ANY_OBJECT
    if preconditions != Preconditions():
        condition = Condition(absent=True) if found is None else Condition(etag=found.etag)
    try:
        put(condition)
    except DriveLacks:
        if not condition.given:
            raise
        put(ANY_OBJECT)
    stored = stat(store, key)
    if stored is None:
        # Somebody has deleted it already, or the store lists it later.
        raise busy()
    return Stored(version_of(stored), before, 0 if before is None else before.size)
