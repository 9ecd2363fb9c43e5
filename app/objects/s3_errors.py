"""What the failures of S3 mean: something that may pass, or something for the operator."""

import errno
import os
import re
from typing import Any, Final

from app.objects.store import ChangedObject, DriveLacks, DriveRefused, DriveUnavailable

#: A code, or a status: what else stands there is told to nobody.
_CODE: Final = re.compile(r"[A-Za-z0-9.]{1,64}")
#: Codes and statuses of what may work in a moment.
_PASSING: Final = frozenset(
    (
        *("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "OperationAborted"),
        *("Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests"),
        *("BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"),
        *("408", "409", "429", "500", "502", "503", "504"),
    )
)
_CREDENTIALS: Final = frozenset(
    (
        *("AccessDenied", "AccountProblem", "AllAccessDisabled", "ExpiredToken", "InvalidToken"),
        *("InvalidAccessKeyId", "InvalidSecurity", "SignatureDoesNotMatch", "TokenRefreshRequired"),
        *("401", "403"),
    )
)
_NO_BUCKET: Final = frozenset(("NoSuchBucket", "InvalidBucketName"))
#: What a bucket in another region answers.
_ELSEWHERE: Final = frozenset(
    ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
)
NOTHING_THERE: Final = frozenset(("NoSuchKey", "NoSuchUpload", "404"))
_CHANGED: Final = frozenset(
    ("PreconditionFailed", "ConditionalRequestConflict", "412", "InvalidRange", "416")
)
#: Of a store that speaks a part of the protocol.
_LACKING: Final = frozenset(("NotImplemented", "501"))
#: Of the machine that asks, and no answer of the store.
_OWN: Final = frozenset(
    (
        *(errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS),
        *(errno.EIO, errno.EFBIG, errno.EROFS),
    )
)
#: Botocore's own, which finds no credentials, or only a part of them.
_NO_CREDENTIALS: Final = frozenset(
    ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError")
)


def translated(error: BaseException, bucket: str) -> OSError:
    """Return a failure of botocore, of s3fs or of the network as the error that it is here.

    No message has what the store said: that may have a key's id in it.
    """
    code = _code(error)
    if code:
        return refusal(code, bucket)
    if isinstance(error, OSError) and error.errno in _OWN:
        return error
    name = type(error).__name__
    # What s3fs has made of an answer without a body.
    if isinstance(error, PermissionError):
        return DriveRefused("the drive refuses its credentials")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if name in _NO_CREDENTIALS:
        return DriveRefused("there are no credentials for the drive")
    if name == "FileExpired":
        return ChangedObject()
    # The connection was refused, cut or too slow, or its end was no end of a message.
    return DriveUnavailable(name)


def refusal(told: object, bucket: str) -> OSError:
    """Return what a code of S3 means, or the status of an answer without one."""
    code = str(told)
    if not _CODE.fullmatch(code):
        # Whoever answers there is not S3, and may write anything.
        code = "a code that S3 does not have"
    if code in _PASSING:
        return DriveUnavailable(code)
    if code in _CREDENTIALS:
        return DriveRefused(f"the drive refuses its credentials ({code})")
    if code in _NO_BUCKET:
        return DriveRefused(f"the drive has no bucket {bucket}")
    if code in _ELSEWHERE:
        return DriveRefused(f"the drive's bucket {bucket} is in another region ({code})")
    if code in NOTHING_THERE:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if code in _CHANGED:
        return ChangedObject()
    if code in _LACKING:
        return DriveLacks(f"the drive lacks what it was asked for ({code})")
    return DriveRefused(f"the drive refuses what it was asked for ({code})")


def _code(error: BaseException | None) -> str:
    """Return what the store answered; empty if it is no answer that failed."""
    while error is not None:
        response: Any = getattr(error, "response", None)
        if isinstance(response, dict) and "Error" in response:
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
            return str(response["Error"].get("Code") or status)
        error = error.__cause__
    return ""
