"""Files on the drive: listed, fetched, stored, and a folder brought up to date.

Uploads over SMALL go by tus 1.0, so that one that breaks goes on where it was.
"""

import base64
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from scaimind.core.commands import (
    Answer,
    Command,
    Emit,
    FilePart,
    NewToken,
    Open,
    Pause,
    Receive,
    Request,
)
from scaimind.core.operations import Steps, one, pages, query
from scaimind.core.retries import TRIES, Backoff, exchange, refusal
from scaimind.errors import ApiError, ConnectionFailed, FileChanged, NotFound, ProtocolError
from scaimind.model import Model

DRIVE: Final = "/v1/drive"
UPLOADS: Final = "/v1/drive-uploads"
#: Bytes of a file that is stored with one request.
SMALL: Final = 8 * 1024 * 1024
#: Bytes of a larger one that go with one request.
PART: Final = 64 * 1024 * 1024
#: Statuses of an upload's part after which it is asked how far it came.
_PASSING: Final = frozenset({409, 429, 500, 502, 503, 504})
_TUS: Final = ("Tus-Resumable", "1.0.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Model):
    """What a folder holds under one name: `kind` is file, folder, link or special."""

    name: str = field(default="", metadata={"kind": str})
    kind: str = field(default="", metadata={"kind": str})
    size_bytes: int | None = field(default=None, metadata={"kind": int})
    modified_at: str = field(default="", metadata={"kind": str})
    etag: str | None = field(default=None, metadata={"kind": str})
    #: Whether it can be named in a request.
    addressable: bool = field(default=True, metadata={"kind": bool})


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder(Model):
    """A folder of the drive, without what it holds. `uri` is how a submission names it."""

    path: str = field(default="", metadata={"kind": str})
    uri: str = field(default="", metadata={"kind": str})


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of the drive, with the version that was stored or fetched."""

    path: str
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to be brought to `name` in a folder. `digest` is its SHA-256 in hex."""

    name: str
    path: Path
    size: int
    digest: str


@dataclass(slots=True)
class Synced:
    """What became of a folder: names of files."""

    stored: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


def place(path: str) -> str:
    """Return where a file is below DRIVE; its names are taken as they are."""
    return "".join(f"/{quote(name, safe='')}" for name in path.split("/") if name)


def get_folder(path: str) -> Steps[Folder]:
    """Get a folder, without what is in it."""
    return one(Folder, Request("GET", f"{place(path)}/", query(page_size=1), root=DRIVE))


def list_folder(path: str) -> Steps[None]:
    """Emit what a folder holds, by name."""
    return pages(Entry, "entries", f"{place(path)}/", query(page_size=1000), root=DRIVE)


def get_file(path: str) -> Steps[Stored]:
    """Get what is stored of a file, without its content. Raises `NotFound`."""
    answer = yield from exchange(Request("HEAD", place(path), root=DRIVE))
    return Stored(path, answer.headers.get("etag", ""), _number(answer, "content-length"))


def is_folder(path: str) -> Steps[bool]:
    """Whether there is a folder of this path."""
    try:
        answer = yield from exchange(Request("HEAD", place(path) or "/", root=DRIVE))
    except NotFound:
        return False
    # A file is served in ranges, the list of a folder is not.
    return "accept-ranges" not in answer.headers


def remove(path: str, *, recursive: bool) -> Steps[None]:
    """Remove a file or a folder."""
    arguments = query(recursive=True if recursive else None)
    yield from exchange(Request("DELETE", place(path), arguments, root=DRIVE))


def upload(
    local: Path, size: int, path: str, *, only_new: bool = False
) -> Generator[Command, Any, Stored]:
    """Store a file of `size` bytes; emit how many bytes have arrived, now and then.

    With `only_new`, raises `Conflict` if there is a file of that name.
    """
    headers = (("If-None-Match", "*"),) if only_new else ()
    if size > SMALL:
        return (yield from _resumable(local, size, path, headers))
    request = Request(
        "PUT",
        place(path),
        headers=headers,
        content=FilePart(local, 0, size),
        timeout=120.0,
        root=DRIVE,
    )
    answer = yield from exchange(request)
    yield Emit(size)
    return Stored(path, answer.headers.get("etag", ""), size)


def _resumable(
    local: Path, size: int, path: str, conditions: tuple[tuple[str, str], ...]
) -> Generator[Command, Any, Stored]:
    name = base64.b64encode(path.strip("/").encode()).decode()
    headers = (_TUS, ("Upload-Length", str(size)), ("Upload-Metadata", f"path {name}"), *conditions)
    # A repetition leaves an empty upload behind, which the gateway removes.
    made = yield from exchange(Request("POST", "/", headers=headers, root=UPLOADS, safe=True))
    at = _below_uploads(made.headers.get("location", ""))
    backoff = Backoff()
    offset, failures = 0, 0
    while True:
        part = FilePart(local, offset, min(PART, size - offset))
        about = (
            ("Upload-Offset", str(offset)),
            ("Content-Type", "application/offset+octet-stream"),
        )
        request = Request(
            "PATCH", at, headers=(_TUS, *about), content=part, timeout=120.0, root=UPLOADS
        )
        before, at_least = offset, 0.0
        try:
            answer = yield from exchange(request, tries=1)
            offset = _number(answer, "upload-offset")
            if offset >= size:
                yield Emit(size)
                return Stored(path, answer.headers.get("etag", ""), size)
        except (ApiError, ConnectionFailed) as error:
            if isinstance(error, ApiError):
                if error.status not in _PASSING:
                    raise
                at_least = error.retry_after or 0.0
            failures += 1
            if failures >= TRIES:
                raise
            yield Pause(backoff.after_failure(at_least=at_least))
            offset = yield from _arrived(at, path, size)
            if offset >= size:
                return (yield from _found(path, size))
        if offset > before:
            failures = 0
            backoff.reset()
            yield Emit(offset)


def _arrived(at: str, path: str, size: int) -> Generator[Command, Any, int]:
    """Ask how far an upload has come: its size, if it is over."""
    try:
        answer = yield from exchange(Request("HEAD", at, headers=(_TUS,), root=UPLOADS))
    except NotFound:
        # The last answer was lost: the upload is over if the file is there.
        yield from _found(path, size)
        return size
    return _number(answer, "upload-offset")


def _found(path: str, size: int) -> Generator[Command, Any, Stored]:
    found = yield from get_file(path)
    if found.size != size:
        raise FileChanged(f"{path} was replaced while it was uploaded.")
    return found


def _below_uploads(location: str) -> str:
    path = urlsplit(location).path
    _, found, rest = path.partition(UPLOADS)
    if not found or not rest.strip("/"):
        raise ProtocolError("The gateway did not say where to upload to.")
    return rest


def _number(answer: Answer, header: str) -> int:
    text = answer.headers.get(header, "")
    if not (text.isascii() and text.isdigit()):
        raise ProtocolError(f"The answer has no {header}.")
    return int(text[:19])


@dataclass(slots=True)
class Fetching:
    """How far a download is; changed by the download alone."""

    size: int = 0
    offset: int = 0
    etag: str = ""


def download(path: str, fetching: Fetching) -> Generator[Command, Any, None]:
    """Emit a file's bytes. A connection that breaks is made again where it was.

    Raises `FileChanged` if the file is another one then.
    """
    backoff = Backoff()
    failures, fresh = 0, False
    while True:
        headers = [("Accept-Encoding", "identity")]
        if fetching.etag:
            headers += [("Range", f"bytes={fetching.offset}-"), ("If-Match", fetching.etag)]
        before, at_least = fetching.offset, 0.0
        try:
            request = Request("GET", place(path), headers=tuple(headers), timeout=60.0, root=DRIVE)
            answer: Answer = yield Open(request)
            if answer.status in (200, 206):
                fetching.etag = answer.headers.get("etag", "")
                fetching.size = before + _number(answer, "content-length")
                while piece := (yield Receive()):
                    fetching.offset += len(piece)
                    yield Emit(piece)
                if fetching.offset == fetching.size:
                    return
            elif answer.status == 412:
                raise FileChanged(f"{path} was replaced while it was fetched.")
            else:
                error = refusal(answer)
                if answer.status == 401 and not fresh:
                    fresh = True
                    if (yield NewToken()):
                        continue
                if answer.status not in _PASSING or failures + 1 >= TRIES:
                    raise error
                at_least = error.retry_after or 0.0
        except ConnectionFailed:
            if failures + 1 >= TRIES:
                raise
        failures += 1
        if fetching.offset > before:
            failures = 0
            backoff.reset()
        yield Pause(backoff.after_failure(at_least=at_least))
