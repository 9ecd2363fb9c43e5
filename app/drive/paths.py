"""Paths below a tenant's folder, as callers write them."""

import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import unquote_to_bytes

from app.errors import FILE_CONFLICT, FILE_NAME_INVALID, ApiError

#: Bytes of a name, as all of Linux's file systems have it.
MAX_NAME: Final = 255
#: Bytes of a path (PATH_MAX of Linux, less its NUL), and names in it.
MAX_PATH: Final = 4095
MAX_DEPTH: Final = 128

_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
#: Where the coordinator keeps what jobs go on from: `jobs/<job id>/checkpoints`.
_JOBS: Final = "jobs"
_CHECKPOINTS: Final = "checkpoints"


@dataclass(frozen=True, slots=True)
class DrivePath:
    """The names on the way from the tenant's folder, which itself has none."""

    parts: tuple[str, ...]
    #: Whether it was written with a slash at its end: only a folder is meant.
    only_folder: bool = False

    @classmethod
    def decoded(cls, raw: str) -> Self:
        """Read a path of a URL, decoding each name once. Raises `ApiError`."""
        if _BAD_ESCAPE.search(raw):
            raise ApiError(
                FILE_NAME_INVALID, "The path has a '%' that begins no escape. Write it as '%25'."
            )
        names = raw.encode("utf-8", "surrogateescape").split(b"/")
        return cls._of(tuple(unquote_to_bytes(name) for name in names))

    @classmethod
    def of(cls, text: str) -> Self:
        """Read a path that is not percent-encoded. Raises `ApiError`."""
        return cls._of(tuple(text.encode("utf-8", "surrogatepass").split(b"/")))

    @classmethod
    def _of(cls, names: tuple[bytes, ...]) -> Self:
        only_folder = names[-1] == b""
        if only_folder:
            names = names[:-1]
        if len(names) > MAX_DEPTH or sum(map(len, names)) + len(names) > MAX_PATH + 1:
            raise ApiError(
                FILE_NAME_INVALID,
                f"The path is too long: at most {MAX_PATH} bytes and {MAX_DEPTH} names.",
            )
        return cls(tuple(map(_name, names)), only_folder or not names)

    def __str__(self) -> str:
        """Write it as it is told to people."""
        return "/".join(self.parts)

    @property
    def is_root(self) -> bool:
        """Whether it is the tenant's folder itself."""
        return not self.parts

    @property
    def name(self) -> str:
        """The last name; there has to be one."""
        return self.parts[-1]

    @property
    def in_checkpoints(self) -> bool:
        """Whether it is the folder of a job's checkpoints, or in one."""
        return len(self.parts) > 2 and (self.parts[0], self.parts[2]) == (_JOBS, _CHECKPOINTS)

    @property
    def above_checkpoints(self) -> bool:
        """Whether folders of checkpoints may be below it."""
        return len(self.parts) < 3 and self.parts[:1] in ((), (_JOBS,))


def is_name(name: bytes) -> bool:
    """Whether a file or a folder can be called so, but for whether it is UTF-8."""
    return (
        0 < len(name) <= MAX_NAME
        and name not in (b".", b"..")
        and b"/" not in name
        and b"\0" not in name
    )


def _name(name: bytes) -> str:
    if not is_name(name):
        raise ApiError(FILE_NAME_INVALID)
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise ApiError(FILE_NAME_INVALID) from None


def check_writable(path: DrivePath) -> None:
    """Raise `ApiError` unless callers may write a file at the path."""
    if path.is_root or path.only_folder:
        raise ApiError(FILE_CONFLICT, "The path is that of a folder. Name a file in it.")
    if path.above_checkpoints:
        raise ApiError(
            FILE_CONFLICT,
            "'jobs' and what is directly in it are folders, of jobs and their checkpoints. Name a"
            " file deeper in it, or elsewhere.",
        )
    if path.in_checkpoints:
        raise ApiError(
            FILE_CONFLICT, "Checkpoints belong to their job, and are not changed by others."
        )


def check_deletable(path: DrivePath) -> None:
    """Raise `ApiError` unless callers may delete what is at the path."""
    if path.is_root:
        raise ApiError(FILE_CONFLICT, "The tenant's folder itself cannot be deleted.")
    if path.in_checkpoints:
        raise ApiError(
            FILE_CONFLICT, "Checkpoints belong to their job, and go when the job is deleted."
        )
