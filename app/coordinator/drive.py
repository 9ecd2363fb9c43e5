"""The files that a caller may name, each below a folder that it never leaves.

    scaidrive://<tenant>/<path>     <drive root>/<tenant>/<path>
    scaiatlas://<tenant>/<name>     a registered model, see `atlas`
    /an/absolute/path               below an allowed folder, to be read only

All of it demands an `Access`. Errors speak of what the caller named, never of
this machine's paths.
"""

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from fsspec import AbstractFileSystem

from . import beneath
from .access import Access
from .beneath import LeadsOut
from .refusals import FailedPrecondition, InvalidArgument

SCHEME: Final = "scaidrive://"
ATLAS_SCHEME: Final = "scaiatlas://"
TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]{0,127}")


class BadUrl(Exception):
    """A URL that names nothing the caller can reach; the message is for the caller."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads: parts below a folder."""

    url: str
    root: Path
    parts: tuple[str, ...]

    def hold(self) -> beneath.Held:
        """What is there, held. Raises BadUrl if nothing can be reached."""
        try:
            return beneath.hold(self.root, self.parts)
        except LeadsOut:
            raise self._leads_out() from None
        except (FileNotFoundError, NotADirectoryError):
            raise BadUrl(f"{shown(self.url)} does not exist{self._hint()}") from None
        except OSError as error:
            raise BadUrl(f"{shown(self.url)} cannot be reached: {error.strerror}") from None

    def path(self) -> Path:
        """Its path without links; its end may be missing. Raises BadUrl."""
        try:
            return beneath.place(self.root, self.parts)
        except LeadsOut:
            raise self._leads_out() from None
        except OSError as error:
            raise BadUrl(f"{shown(self.url)} cannot be reached: {error.strerror}") from None

    def _leads_out(self) -> BadUrl:
        owner = "your tenant's folder" if self.url.startswith(SCHEME) else "the allowed folder"
        return BadUrl(f"{shown(self.url)} leads out of {owner}")

    def _hint(self) -> str:
        if any(mark in self.url for mark in "*?["):
            return "; patterns are not expanded, name a file or a directory of files"
        return ""


class DriveFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """What one access reaches, to be read, as fsspec has it; paths are URLs."""

    protocol = "scaidrive"
    #: An instance is for one access: fsspec must not hand it to anybody else.
    cachable = False

    def __init__(self, drive: "Drive", access: Access) -> None:
        super().__init__()
        self._drive = drive
        self._access = access

    @classmethod
    def _strip_protocol(cls, path: str | list[str]) -> str | list[str]:
        """A URL stays as it is: it is checked as the caller wrote it."""
        return path

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, type, size, and what tells two versions apart. Raises BadUrl."""
        with self._drive.place(self._access, path).hold() as held:
            return _info(path, held.stat())

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """A directory's entries by name, or the file itself. Raises BadUrl, OSError."""
        place = self._drive.place(self._access, path)
        with place.hold() as held:
            about = held.stat()
            if not stat.S_ISDIR(about.st_mode):
                return [_info(path, about)] if detail else [path]
            folder = held.open()
            try:
                names = sorted(os.listdir(folder))
            finally:
                os.close(folder)
        urls = [f"{path.rstrip('/')}/{name}" for name in names]
        return [self.info(url) for url in urls] if detail else urls

    def _open(self, path: str, mode: str = "rb", **_: Any) -> BinaryIO:
        if mode != "rb":
            raise ValueError("it can only be read")
        with self._drive.place(self._access, path).hold() as held:
            if not stat.S_ISREG(held.stat().st_mode):
                raise BadUrl(f"{shown(path)} is not a file")
            try:
                return os.fdopen(held.open(), "rb")
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

    def __init__(self, root: Path, *, atlas: Path | None = None, allowed: Sequence[Path] = ()):
        self.root = root
        self.atlas = atlas
        self.allowed = tuple(allowed)

    def url(self, tenant_id: str, path: str) -> str:
        """The URL of a path below the tenant's folder."""
        return f"{SCHEME}{tenant_id}/{path}"

    def tenant_root(self, tenant_id: str) -> Path:
        """The tenant's folder; made if it is not there."""
        folder = self.root / tenant_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

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
            raise BadUrl(f"{shown(url)} is not among what the job was granted")
        return place

    def destination(self, access: Access, url: str) -> Path:
        """Where a URL's file or directory is to be written. Raises BadUrl."""
        if not url.startswith(SCHEME):
            raise BadUrl(f"{shown(url)} is not of the form scaidrive://<tenant>/<path>")
        return self.place(access, url).path()

    def find(self, access: Access, url: str) -> Path:
        """Where a URL's file or directory is. Raises BadUrl if it is not there."""
        with self.place(access, url).hold() as held:
            return held.path()

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
            with place.hold() as held:
                found = _info(url, held.stat())["type"]
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


def _parts(url: str, path: str, problem: str) -> tuple[str, ...]:
    parts = tuple(path.removesuffix("/").split("/"))
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise BadUrl(f"{shown(url)} {problem}")
    return parts


def shown(url: str) -> str:
    """A caller's text as it can be repeated."""
    return url if len(url) <= 512 and url.isprintable() else repr(url[:512])
