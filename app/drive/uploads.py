"""Resumable uploads: what the routes of `/v1/drive-uploads/` ask, in whatever keeps them.

Every call raises `ApiError`.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Protocol, Self

import orjson

from app.drive.drive import Stored
from app.drive.paths import DrivePath
from app.drive.versions import Preconditions, Tags
from app.errors import UPLOAD_LOCKED, ApiError

#: Unfinished uploads of a tenant.
MOST_UPLOADS: Final = 1_000
#: Bytes of what is known about an upload.
MAX_INFO: Final = 64 * 1024
#: Lifetimes after which an upload goes, whatever came of it.
_MOST_LIFETIMES: Final = 7
#: Bytes of an id.
_ID_BYTES: Final = 16
#: Seconds that a request which is taken over from has to end.
_PATIENCE: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadInfo:
    """What is known about an upload."""

    upload_id: str
    #: Where the file goes.
    path: str
    #: Bytes of the file; None while they are not known.
    length: int | None
    #: Seconds since 1970.
    created_at: float
    #: As the client sent it.
    metadata: str
    if_match: str | None = None
    if_none_match: str | None = None
    #: The entity tag of the file, once it is in its place and this was written after it.
    stored: str = ""

    @classmethod
    def new(
        cls,
        path: DrivePath,
        *,
        length: int | None,
        metadata: str,
        if_match: str | None,
        if_none_match: str | None,
    ) -> Self:
        """Return that of an upload that begins now, with an id that nobody can guess."""
        return cls(
            upload_id=secrets.token_urlsafe(_ID_BYTES),
            path=str(path),
            length=length,
            created_at=time.time(),
            metadata=metadata,
            if_match=if_match,
            if_none_match=if_none_match,
        )

    @property
    def preconditions(self) -> Preconditions:
        """What has to be at the path when the file is put there."""
        match, none_match = self.if_match, self.if_none_match
        return Preconditions(
            None if match is None else Tags.parse(match),
            None if none_match is None else Tags.parse(none_match),
        )

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read what is stored. Raises ValueError."""
        stored = orjson.loads(content)
        if not isinstance(stored, dict):
            raise ValueError("it is not known about an upload")
        # Another version of this program may know more.
        known: dict[str, Any] = {each.name: stored.get(each.name) for each in fields(cls)}
        length, created_at = known["length"], known["created_at"]
        texts = ("upload_id", "path", "metadata", "stored")
        if (
            not all(isinstance(known[name], str) for name in texts)
            or not all(
                isinstance(known[name], str | None) for name in ("if_match", "if_none_match")
            )
            or not (length is None or (type(length) is int and length >= 0))
            or not isinstance(created_at, int | float)
        ):
            raise ValueError("it is not known about an upload")
        return cls(**known)

    def dump(self) -> bytes:
        """Return what is stored."""
        return orjson.dumps(asdict(self))

    def expires_at(self, changed_at: float, lifetime: float) -> float:
        """Return when the upload goes: a lifetime after its last byte, at most seven in all."""
        return min(changed_at + lifetime, self.created_at + _MOST_LIFETIMES * lifetime)


@dataclass(frozen=True, slots=True)
class UploadState:
    """An upload as of one moment."""

    info: UploadInfo
    offset: int
    #: Seconds since 1970.
    expires_at: float


class UploadWriting(Protocol):
    """An upload that a request has alone. One call at a time."""

    @property
    def finished(self) -> bool:
        """Whether the file is in its place."""

    @property
    def stored(self) -> Stored | None:
        """The file, if this request has put it into its place."""

    async def state(self) -> UploadState:
        """Return how far it is."""

    async def set_length(self, length: int) -> None:
        """Note how many bytes the file has, which were not known."""

    async def write(
        self, data: bytes | bytearray, *, check: Callable[[bytes | bytearray], None]
    ) -> None:
        """Append; `check` is given the data in a thread before."""

    async def sync(self) -> None:
        """Wait until what has come is kept."""

    async def finish_if_complete(self) -> None:
        """Put the file into its place if all of it has come."""


class Uploads(Protocol):
    """The unfinished uploads of all tenants.

    A request ends another one for the same upload that this process serves: its
    client has lost it, and comes back.
    """

    @property
    def max_size(self) -> int:
        """Bytes that a file may have; 0 is no limit."""

    async def create(self, tenant_id: str, path: DrivePath, info: UploadInfo) -> UploadState:
        """Make an upload that is new, if there is room for the file; `path` is that of `info`."""

    async def state(self, tenant_id: str, upload_id: str) -> UploadState:
        """Return how far an upload is; one that only lacks its place is put there."""

    async def remove(self, tenant_id: str, upload_id: str) -> None:
        """End an upload; what has come of it goes."""

    def writing(
        self, tenant_id: str, upload_id: str, *, whole: bool = False
    ) -> AbstractAsyncContextManager[UploadWriting]:
        """Have an upload alone. Another request for it raises `UPLOAD_LOCKED` in this block.

        With `whole`, nothing of what comes is kept unless `sync` has returned.
        """


@dataclass(slots=True, eq=False)
class Turn:
    """A request that has an upload."""

    limit: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))
    #: Whether it is within its limit, which can be changed then.
    running: bool = False
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    #: Lets go of the upload, and calls what it is given after that; None: there is nothing to do.
    end: Callable[[Callable[[], None]], None] | None = None

    def stop(self) -> None:
        """Have the request end."""
        if self.running and not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time())


class UploadTurns:
    """The requests of this process that have an upload: one for each, the latest."""

    def __init__(self) -> None:
        self._turns: dict[tuple[str, str], Turn] = {}

    @asynccontextmanager
    async def alone(self, tenant_id: str, upload_id: str) -> AsyncIterator[Turn]:
        """Have an upload alone in the block: the request that has it is ended.

        Raises `UPLOAD_LOCKED` if that one does not end, and from within when another comes.
        """
        key = (tenant_id, upload_id)
        await self._take_over(key)
        turn = self._turns[key] = Turn()

        def gone() -> None:
            del self._turns[key]
            turn.gone.set()

        try:
            async with turn.limit:
                turn.running = True
                yield turn
        except TimeoutError:
            if not turn.limit.expired():
                raise
            raise ApiError(
                UPLOAD_LOCKED, "Another request for this upload has taken over.", retry_after=1
            ) from None
        finally:
            turn.running = False
            if turn.end is None:
                gone()
            else:
                turn.end(gone)

    async def _take_over(self, key: tuple[str, str]) -> None:
        loop = asyncio.get_running_loop()
        latest = loop.time() + _PATIENCE
        while (other := self._turns.get(key)) is not None:
            other.stop()
            try:
                async with asyncio.timeout_at(latest):
                    await other.gone.wait()
            except TimeoutError:
                raise ApiError(UPLOAD_LOCKED, retry_after=1) from None
