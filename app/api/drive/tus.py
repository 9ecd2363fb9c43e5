"""The headers of tus 1.0.0 (https://tus.io/protocols/resumable-upload)."""

import base64
import hashlib
import hmac
from email.utils import formatdate
from typing import Any, Final

from aiohttp import hdrs, web

from app.drive.uploads import UploadState
from app.errors import (
    MALFORMED_REQUEST,
    PRECONDITION_FAILED,
    UNSUPPORTED_MEDIA_TYPE,
    ApiError,
)

UPLOADS_PATH: Final = "/v1/drive-uploads/"
VERSION: Final = "1.0.0"
CONTENT_TYPE: Final = "application/offset+octet-stream"
RESUMABLE: Final = "Tus-Resumable"
OFFSET: Final = "Upload-Offset"
LENGTH: Final = "Upload-Length"
METADATA: Final = "Upload-Metadata"
METHOD_OVERRIDE: Final = "X-HTTP-Method-Override"
_DEFER: Final = "Upload-Defer-Length"
_EXPIRES: Final = "Upload-Expires"
_CHECKSUM: Final = "Upload-Checksum"
_EXTENSIONS: Final = (
    "creation,creation-with-upload,creation-defer-length,expiration,termination,checksum"
)
_ALGORITHMS: Final = ("sha1", "sha256", "sha512")
_MAX_SIZE: Final = 2**63 - 1
_MAX_METADATA: Final = 8 * 1024


async def add_version(request: web.Request, response: web.StreamResponse) -> None:
    """Complete the headers of every answer below `/v1/drive-uploads/`, refusals included."""
    if request.path.startswith(UPLOADS_PATH):
        response.headers.setdefault(RESUMABLE, VERSION)
        if response.status == PRECONDITION_FAILED.status:
            response.headers["Tus-Version"] = VERSION


def options(max_size: int) -> dict[str, str]:
    """Return what the server can do; `max_size` 0 is no limit."""
    headers = {
        "Tus-Version": VERSION,
        "Tus-Extension": _EXTENSIONS,
        "Tus-Checksum-Algorithm": ",".join(_ALGORITHMS),
    }
    return headers | ({"Tus-Max-Size": str(max_size)} if max_size else {})


def check_version(request: web.Request) -> None:
    """Refuse another version of the protocol. Raises `ApiError`."""
    if request.headers.get(RESUMABLE) != VERSION:
        raise ApiError(
            PRECONDITION_FAILED, f"The request has to have the header {RESUMABLE}: {VERSION}."
        )


def check_content_type(request: web.Request) -> None:
    """Refuse a body that is no part of a file. Raises `ApiError`."""
    if request.content_type != CONTENT_TYPE:
        raise ApiError(UNSUPPORTED_MEDIA_TYPE, f"The body has to be of type {CONTENT_TYPE}.")


def number(request: web.Request, name: str) -> int | None:
    """Read a header that is a number; None if it is not there. Raises `ApiError`."""
    value = request.headers.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 19 and int(value) <= _MAX_SIZE):
        raise ApiError(MALFORMED_REQUEST, f"{name} has to be a number of bytes.")
    return int(value)


def length_of(request: web.Request) -> int | None:
    """Read how long a new upload is; None if that is said later. Raises `ApiError`."""
    length, deferred = number(request, LENGTH), request.headers.get(_DEFER)
    if (length is None) == (deferred is None) or deferred not in (None, "1"):
        raise ApiError(
            MALFORMED_REQUEST, f"The request has to have either {LENGTH} or {_DEFER}: 1."
        )
    return length


def metadata_of(request: web.Request) -> tuple[str, dict[str, str]]:
    """Read what the client says about a file: as it is written, and by its names.

    Raises `ApiError`.
    """
    written = request.headers.get(METADATA, "")
    found: dict[str, str] = {}
    if len(written) > _MAX_METADATA:
        raise ApiError(MALFORMED_REQUEST, f"{METADATA} has more than {_MAX_METADATA} characters.")
    try:
        if not written.isascii():
            # It is stored and sent back; other bytes come as surrogates, which cannot be.
            raise ValueError
        for pair in filter(None, written.split(",")):
            name, _, value = pair.strip().partition(" ")
            if not name or name in found:
                raise ValueError
            found[name] = base64.b64decode(value, validate=True).decode("utf-8")
    except ValueError:
        raise ApiError(
            MALFORMED_REQUEST,
            f"{METADATA} has to be pairs of a name in ASCII and a value in base64, separated by"
            " commas; the values are UTF-8.",
        ) from None
    return written, found


class Checksum:
    """What a body has to hash to, if the client says so."""

    def __init__(self, request: web.Request) -> None:
        """Read the header. Raises `ApiError`."""
        self._hash: Any = None
        value = request.headers.get(_CHECKSUM)
        if value is None:
            return
        algorithm, _, digest = value.strip().partition(" ")
        try:
            self._expected = base64.b64decode(digest, validate=True)
        except ValueError:  # also of what is not ASCII
            self._expected = b""
        if algorithm not in _ALGORITHMS or not self._expected:
            raise ApiError(
                MALFORMED_REQUEST,
                f"{_CHECKSUM} has to be one of {', '.join(_ALGORITHMS)} and a digest in base64.",
            )
        self._hash = hashlib.new(algorithm, usedforsecurity=False)

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return self._hash is not None

    def update(self, data: bytes | bytearray) -> None:
        """Take a part of the body. For a thread: it takes a while."""
        if self._hash is not None:
            self._hash.update(data)

    def matches(self) -> bool:
        """Return whether the body is what the client sent."""
        return self._hash is None or hmac.compare_digest(self._hash.digest(), self._expected)


def state_headers(state: UploadState) -> dict[str, str]:
    """Return how far an upload is."""
    info = state.info
    headers: dict[str, str] = {
        OFFSET: str(state.offset),
        _EXPIRES: formatdate(state.expires_at, usegmt=True),
        hdrs.CACHE_CONTROL: "no-store",
    }
    if info.length is None:
        headers[_DEFER] = "1"
    else:
        headers[LENGTH] = str(info.length)
    if info.metadata:
        headers[METADATA] = info.metadata
    return headers
