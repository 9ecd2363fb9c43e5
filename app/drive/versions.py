"""The version of a file, and what requests demand of it (RFC 9110, 8.8 and 13)."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final, Self

from app.errors import MALFORMED_REQUEST, PRECONDITION_FAILED, ApiError

#: Of ASCII, as this server's are: bytes above that come as surrogates, which cannot be stored.
_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e]*"'
_TAGS: Final = re.compile(rf"(?:[ \t]*,)*[ \t]*{_TAG}(?:[ \t]*,(?:[ \t]*{_TAG})?)*[ \t]*")


@dataclass(frozen=True, slots=True)
class Version:
    """Of a regular file, as of one moment."""

    size: int
    modified_ns: int
    #: As the header `ETag` has it: strong. A file that was replaced or written to has another one.
    tag: str

    @classmethod
    def of(cls, about: os.stat_result) -> Self:
        """Make it of what the system says of the file."""
        # Not st_ctime: it also changes where another name is made or goes.
        known = f"{about.st_ino}-{about.st_size}-{about.st_mtime_ns}"
        digest = hashlib.sha256(known.encode()).hexdigest()[:24]
        return cls(about.st_size, about.st_mtime_ns, f'"{digest}"')

    @classmethod
    def of_object(cls, size: int, modified_us: int, etag: str) -> Self:
        """Make it of what a store says of an object, whose versions differ in `etag`."""
        # A digest: who knows what a store writes there.
        digest = hashlib.sha256(f"{size}-{etag}".encode()).hexdigest()[:24]
        return cls(size, modified_us * 1000, f'"{digest}"')

    @property
    def modified_s(self) -> int:
        """Seconds since 1970, as HTTP dates have them."""
        return self.modified_ns // 1_000_000_000


@dataclass(frozen=True, slots=True)
class Tags:
    """What `If-Match` or `If-None-Match` lists: entity tags, or any version at all."""

    #: None for `*`.
    listed: tuple[str, ...] | None

    @classmethod
    def parse(cls, value: str) -> Self:
        """Read a header's value. Raises `ApiError`."""
        if value.strip() == "*":
            return cls(None)
        if not _TAGS.fullmatch(value):
            raise ApiError(
                MALFORMED_REQUEST,
                "If-Match and If-None-Match are '*' or entity tags as an ETag header has them:"
                " ASCII, in double quotes.",
            )
        return cls(tuple(re.findall(_TAG, value)))

    def match(self, version: Version | None, *, weak: bool = False) -> bool:
        """Return whether the version is among them; with `weak` by the weak comparison."""
        if version is None:
            return False
        if self.listed is None:
            return True
        return any(
            version.tag == (each.removeprefix("W/") if weak else each) for each in self.listed
        )


@dataclass(frozen=True, slots=True)
class Preconditions:
    """All that a request demands of the version that is there."""

    if_match: Tags | None = None
    if_none_match: Tags | None = None
    #: Seconds since 1970.
    if_modified_since: int | None = None
    if_unmodified_since: int | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """Read the request's headers; of several of a name they are joined. Raises `ApiError`."""
        match, none_match = headers.get("If-Match"), headers.get("If-None-Match")
        return cls(
            None if match is None else Tags.parse(match),
            None if none_match is None else Tags.parse(none_match),
            seconds(headers.get("If-Modified-Since")),
            seconds(headers.get("If-Unmodified-Since")),
        )

    def check(self, version: Version | None) -> None:
        """Raise `ApiError` (`PRECONDITION_FAILED`) unless the request may change this version.

        None is that nothing is there.
        """
        if self.if_match is not None:
            failed = not self.if_match.match(version)
        else:
            since = self.if_unmodified_since
            failed = since is not None and version is not None and version.modified_s > since
        if failed or (
            self.if_none_match is not None and self.if_none_match.match(version, weak=True)
        ):
            raise ApiError(PRECONDITION_FAILED)

    def unmodified(self, version: Version) -> bool:
        """Return whether a reader has this version already; raises `ApiError` like `check`."""
        reading = Preconditions(
            if_match=self.if_match, if_unmodified_since=self.if_unmodified_since
        )
        reading.check(version)
        if self.if_none_match is not None:
            return self.if_none_match.match(version, weak=True)
        since = self.if_modified_since
        return since is not None and version.modified_s <= since


def seconds(value: str | None) -> int | None:
    """Read an HTTP date as seconds since 1970; None for what is none (RFC 9110, 13.1.3)."""
    if value is None:
        return None
    try:
        read: datetime = parsedate_to_datetime(value)
        return int(read.timestamp())
    except (ValueError, OverflowError):
        return None
