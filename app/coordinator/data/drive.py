"""The files that a caller may name, each below a folder that it never leaves.

    scaidrive://<tenant>/<path>     <drive root>/<tenant>/<path>
    scaiatlas://<tenant>/<name>     a registered model, see `atlas`
    /an/absolute/path               below an allowed folder, to be read only

All of it demands an `Access`. Errors speak of what the caller named, never of
this machine's paths.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from app.coordinator.errors import FailedPrecondition, InvalidArgument
from app.coordinator.failures import is_passing
from app.coordinator.identity.access import Access
from app.files.beneath import LeadsOut, OpenedPath, open_beneath, reach_beneath
from app.files.directory import Directory, NotARegularFile
from app.shortening import quoted

SCHEME: Final = "scaidrive://"
ATLAS_SCHEME: Final = "scaiatlas://"
#: The directory of a job's folder that its processes write to.
CHECKPOINTS: Final = "checkpoints"
JOB_ID: Final = re.compile(r"(job|eval)-[0-9a-f]{20}")
#: Bytes of a name, as all of Linux's file systems have it.
_MAX_NAME: Final = 255
#: Entries that a directory may have to be listed.
_MAX_ENTRIES: Final = 100_000


class BadUrl(Exception):
    """A URL that names nothing the caller can reach; the message is for the caller."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads: parts below a folder."""

    url: str
    root: Path
    parts: tuple[str, ...]

    def open(self) -> OpenedPath:
        """Hold what is there. Raises BadUrl if nothing can be reached; OSError for the machine's
        own failures, such as too many open files, which say nothing about the URL."""
        try:
            return open_beneath(self.root, self.parts, closed=_holds_checkpoints)
        except LeadsOut:
            raise self._leads_out() from None
        except (FileNotFoundError, NotADirectoryError):
            raise BadUrl(f"{shown(self.url)} does not exist{self._hint()}") from None
        except OSError as error:
            if is_passing(error):
                raise
            raise BadUrl(f"{shown(self.url)} cannot be reached: {error.strerror}") from None

    def open_destination(self) -> tuple[Directory, str]:
        """Open the directory that is there; or the one above it, made if it is missing, with
        the name that is free in it.

        The name is empty if the directory itself is there. Raises BadUrl, OSError.
        """
        opened, missing = self._reach()
        with opened, self._problems():
            here = opened.open_directory()
            try:
                for name in missing[:-1]:
                    below = here.make_directory(name, exist_ok=True)
                    here.close()
                    here = below
            except BaseException:
                here.close()
                raise
        return here, missing[-1] if missing else ""

    def check_destination(self) -> None:
        """Raise BadUrl if no directory could be written there. Raises OSError."""
        opened, missing = self._reach()
        with opened, self._problems():
            if not stat.S_ISDIR(opened.stat().st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if any(len(os.fsencode(name)) > _MAX_NAME for name in missing):
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            if not os.access(f"/proc/self/fd/{opened.descriptor}", os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def _reach(self) -> tuple[OpenedPath, list[str]]:
        with self._problems():
            return reach_beneath(self.root, self.parts, closed=_holds_checkpoints)

    @contextmanager
    def _problems(self) -> Iterator[None]:
        """Say what is wrong with a destination as a BadUrl."""
        try:
            yield
        except LeadsOut:
            raise self._leads_out() from None
        except NotADirectoryError:
            raise BadUrl(f"{shown(self.url)} is not a directory and cannot become one") from None
        except OSError as error:
            if is_passing(error):
                raise
            raise BadUrl(f"{shown(self.url)} cannot be reached: {error.strerror}") from None

    def _leads_out(self) -> BadUrl:
        owner = "your tenant's folder" if self.url.startswith(SCHEME) else "the allowed folder"
        return BadUrl(
            f"{shown(self.url)} leads outside {owner}, or through a link outside a job's"
            " checkpoints"
        )

    def _hint(self) -> str:
        if any(mark in self.url for mark in "*?["):
            return "; patterns are not expanded, name a file or a directory of files"
        return ""


class DriveFileSystem:
    """What one access reaches, to be read; paths are URLs, which are checked as they were written.

    Its methods are those of fsspec's file systems.
    """

    def __init__(self, drive: "Drive", access: Access) -> None:
        self._drive = drive
        self._access = access

    def info(self, path: str) -> dict[str, Any]:
        """Name, type, size, and what tells two versions apart. Raises BadUrl."""
        with self._drive.place(self._access, path).open() as opened:
            return _info(path, opened.stat())

    def ls(self, path: str, detail: bool = True, *, limit: int = _MAX_ENTRIES) -> list[Any]:
        """A directory's entries by name, or the file itself. Raises BadUrl, OSError;
        LimitReached if there are more than `limit`."""
        with self._drive.place(self._access, path).open() as opened:
            about = opened.stat()
            if not stat.S_ISDIR(about.st_mode):
                return [_info(path, about)] if detail else [path]
            with opened.open_directory() as directory:
                names = [entry.name for entry in directory.entries(limit=limit)]
        urls = [f"{path.rstrip('/')}/{name}" for name in names]
        return [self.info(url) for url in urls] if detail else urls

    def open(self, path: str) -> BinaryIO:
        """The content of a file. Raises BadUrl, OSError."""
        with self._drive.place(self._access, path).open() as opened:
            try:
                return opened.open_file()
            except NotARegularFile:
                raise BadUrl(f"{shown(path)} is not a file") from None
            except PermissionError:
                raise BadUrl(f"{shown(path)} is not readable") from None


def _info(url: str, about: os.stat_result) -> dict[str, Any]:
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory"}
    return {
        "name": url,
        "size": about.st_size,
        "type": kinds.get(stat.S_IFMT(about.st_mode), "other"),
        "mtime_ns": about.st_mtime_ns,
        "ino": about.st_ino,
    }


class Drive:
    """The files of all tenants; nothing is told without an access."""

    #: Has threads to ask it in where an answer may take long; None where it comes at once.
    asking: Executor | None = None

    def __init__(self, root: Path, *, atlas: Path | None = None, allowed: Sequence[Path] = ()):
        self.root = root
        self.atlas = atlas
        self.allowed = tuple(allowed)

    def close(self) -> None:
        """Let go of what it holds."""

    def url(self, tenant_id: str, path: str) -> str:
        """The URL of a path below the tenant's folder."""
        return f"{SCHEME}{tenant_id}/{path}"

    def tenant_root(self, tenant_id: str) -> Path:
        """The tenant's folder; made if it is not there."""
        folder = self.root / tenant_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def folders(self, tenant_id: str) -> tuple[Path, ...]:
        """All folders that a tenant's URLs lead into."""
        atlas = () if self.atlas is None else (self.atlas / tenant_id,)
        return (self.tenant_root(tenant_id), *atlas, *self.allowed)

    def filesystem(self, access: Access) -> DriveFileSystem:
        """The files as this access sees them."""
        return DriveFileSystem(self, access)

    def place(self, access: Access, url: str) -> Place:
        """Where a URL leads. Looks at its form, and at what the access covers. Raises BadUrl."""
        if url.startswith(SCHEME):
            place = self._on_drive(access, url)
        elif url.startswith(ATLAS_SCHEME):
            place = self._in_atlas(access, url)
        else:
            place = self._allowed(url)
        if not access.covers(url):
            raise BadUrl(f"{shown(url)} is not covered by the job's grant")
        return place

    def destination(self, access: Access, url: str) -> Place:
        """Where a URL's directory is to be written. Looks at its form only. Raises BadUrl."""
        if not url.startswith(SCHEME):
            raise BadUrl(f"{shown(url)} is not of the form scaidrive://<tenant>/<path>")
        return self.place(access, url)

    def find(self, access: Access, url: str) -> Path:
        """Where a URL's file or directory is at this moment. Raises BadUrl if it is not there.

        A job may change what is there before the path is used: a process may
        use it that can reach no more than `unchangeable`.
        """
        with self.place(access, url).open() as opened:
            return opened.path()

    def check(self, access: Access, url: str) -> None:
        """Raise BadUrl unless a file or a directory is there."""
        self.find(access, url)

    def content(self, access: Access, url: str, name: str, *, limit: int) -> bytes | None:
        """Return the first `limit` bytes of the file `name` in the directory that a URL names;
        None if it is not there. Raises BadUrl for the URL's form, OSError."""
        place = self.place(access, url)
        try:
            with replace(place, parts=(*place.parts, name)).open() as opened:
                file = opened.open_file()
        except (BadUrl, NotARegularFile):
            return None
        with file:
            return file.read(limit)

    def unchangeable(self, path: Path) -> Path:
        """As much of a path that `find` returned as no job can change: where a job's checkpoints
        are it ends with their directory, and elsewhere it is the whole path.

        What is there can be opened by its path: no job can put a link in its place.
        """
        parts = path.parts
        for end in range(2, len(parts)):
            if _holds_checkpoints(parts[:end]):
                return Path(*parts[:end])
        return path

    def require(self, access: Access, where: str, url: str, *, kind: str = "") -> None:
        """Refuse a URL in the request's field `where` unless it is there, and of the kind
        `file` or `directory` if one is given.

        Raises InvalidArgument for its form, FailedPrecondition for what is there.
        """
        try:
            place = self.place(access, url)
        except BadUrl as error:
            raise InvalidArgument(where, str(error)) from None
        try:
            with place.open() as opened:
                found = _info(url, opened.stat())["type"]
        except BadUrl as error:
            raise FailedPrecondition(f"{where}: {error}") from None
        if kind and found != kind:
            raise FailedPrecondition(f"{where}: {shown(url)} is not a {kind}")

    def pinned(self, access: Access, url: str) -> str:
        """A model's URL with the version that is its newest now; any other URL as it is.

        Raises BadUrl if the model is not there.
        """
        if not url.startswith(ATLAS_SCHEME) or "@" in url.rpartition("/")[2]:
            return url
        # <name>/<version>/files
        return f"{url}@{self.find(access, url).parent.name}"

    def _on_drive(self, access: Access, url: str) -> Place:
        tenant, _, path = url.removeprefix(SCHEME).partition("/")
        own = f"{SCHEME}{access.tenant_id}/"
        if tenant != access.tenant_id:
            raise BadUrl(f"{shown(url)} is not in your tenant's folder {own}")
        folder = self.tenant_root(tenant)
        return Place(url, folder, _parts(url, path, f"is not a plain path below {own}"))

    def _in_atlas(self, access: Access, url: str) -> Place:
        tenant, _, name = url.removeprefix(ATLAS_SCHEME).partition("/")
        own = f"{ATLAS_SCHEME}{access.tenant_id}/"
        if tenant != access.tenant_id:
            raise BadUrl(f"{shown(url)} is not one of your tenant's models {own}")
        if self.atlas is None or (model := MODEL.fullmatch(name)) is None:
            raise BadUrl(f"{shown(url)} is not of the form {own}<name>@<version>")
        parts = (model["name"], model["version"] or NEWEST, "files")
        return Place(url, self.atlas / access.tenant_id, parts)

    def _allowed(self, url: str) -> Place:
        problem = (
            "is neither of the form scaidrive://<tenant>/<path> nor below a folder that this"
            " coordinator allows"
        )
        if url.startswith("/"):
            for root in self.allowed:
                prefix = f"{str(root).rstrip('/')}/"
                if url.startswith(prefix):
                    return Place(url, root, _parts(url, url.removeprefix(prefix), problem))
        raise BadUrl(f"{shown(url)} {problem}")


#: The name of a model, and optionally a version, behind the tenant in a scaiatlas:// URL.
MODEL: Final = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,127})(?:@(?P<version>[1-9][0-9]{0,8}))?"
)
#: The link to a model's newest version.
NEWEST: Final = "newest"


def _holds_checkpoints(names: Sequence[str]) -> bool:
    """Whether a path is the directory of a job's checkpoints: the job writes there, links too."""
    return len(names) > 1 and names[-1] == CHECKPOINTS and JOB_ID.fullmatch(names[-2]) is not None


def _parts(url: str, path: str, problem: str) -> tuple[str, ...]:
    parts = tuple(path.removesuffix("/").split("/"))
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise BadUrl(f"{shown(url)} {problem}")
    return parts


def shown(url: str) -> str:
    """A caller's text as it can be repeated."""
    return url if len(url) <= 512 and url.isprintable() else quoted(url, 512)
