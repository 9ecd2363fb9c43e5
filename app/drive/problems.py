"""What the system or the store says of a file, as callers are told."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from app.errors import (
    DRIVE_BUSY,
    DRIVE_FULL,
    DRIVE_UNAVAILABLE,
    FILE_CONFLICT,
    FILE_NAME_INVALID,
    FILE_NOT_FOUND,
    FILE_NOT_SERVED,
    PRECONDITION_FAILED,
    ApiError,
    ErrorKind,
)
from app.files.directory import NotARegularFile
from app.objects.store import ChangedObject, DriveRefused, DriveUnavailable

log = structlog.get_logger()

_KINDS: Final[dict[int, ErrorKind]] = {
    errno.ENOENT: FILE_NOT_FOUND,
    # A link or a file where a folder was named.
    errno.ENOTDIR: FILE_NOT_FOUND,
    errno.ELOOP: FILE_NOT_FOUND,
    errno.EACCES: FILE_NOT_SERVED,
    errno.EPERM: FILE_NOT_SERVED,
    errno.ENAMETOOLONG: FILE_NAME_INVALID,
    errno.EILSEQ: FILE_NAME_INVALID,
    errno.ENOSPC: DRIVE_FULL,
    errno.EDQUOT: DRIVE_FULL,
    errno.EROFS: FILE_CONFLICT,
}
#: Of the machine, and it may pass.
_PASSING: Final = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
)

#: Seconds after which a caller may try again.
_RETRY_AFTER: Final = 5
#: Where an operator has to do something first.
_RETRY_MUCH_LATER: Final = 60


def busy() -> ApiError:
    """Return the refusal of a drive that cannot do any more at the moment."""
    return ApiError(DRIVE_BUSY, retry_after=_RETRY_AFTER)


@contextmanager
def told() -> Iterator[None]:
    """Raise the `ApiError` that stands for an OSError; others are faults of this program."""
    try:
        yield
    except NotARegularFile:
        raise ApiError(FILE_NOT_SERVED) from None
    except DriveUnavailable as error:
        log.warning("drive_store_unavailable", reason=error.strerror)
        raise ApiError(DRIVE_UNAVAILABLE, retry_after=_RETRY_AFTER) from None
    except DriveRefused as error:
        log.error(
            "drive_store_refused",
            reason=error.strerror,
            advice="Look at SCAIMIND_DRIVE_URL and what SCAIMIND_DRIVE_CREDENTIALS_FILE may do.",
        )
        raise ApiError(DRIVE_UNAVAILABLE, retry_after=_RETRY_MUCH_LATER) from None
    except ChangedObject:
        raise ApiError(PRECONDITION_FAILED, "The file was changed meanwhile.") from None
    except OSError as error:
        kind = _KINDS.get(error.errno or 0)
        if kind is not None:
            raise ApiError(kind) from None
        if error.errno in _PASSING:
            log.warning("drive_disk_failed", reason=error.strerror)
            raise busy() from None
        raise
