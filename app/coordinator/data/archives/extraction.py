"""What a `.tar.gz` may put into a directory. Stricter than `tarfile`'s own data filter (PEP 706).

Names stay below the directory, and each is there once. There are files,
directories, and links that lead to what is below the directory; anything else
refuses the whole archive. Nothing is written through a link: symbolic links are
made when all files are there. Owners, times and attributes are not taken over.
"""

import errno
import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from app.coordinator.data.archives.unpacked_tar import LONGEST_READ, BadArchive, UnpackedTar
from app.files.beneath import LeadsOut, open_beneath
from app.files.directory import Directory
from app.files.names import printable
from app.files.walking import Limits, Position
from app.shortening import quoted

_COPY: Final = 256 * 1024
_MAX_NAME: Final = 255
_MAX_TARGET: Final = 4095
#: Bytes of the archive for each entry that are no content: headers, a long name, padding.
_FRAME: Final = 4 * 1024
#: An archive's end, padded to a record of 20 blocks.
_END: Final = 64 * 1024
_MODE: Final = 0o777
_OWNER_MODE: Final = 0o600
#: What the readers of damaged archives raise, beside OSError: tarfile's recursion over headers and
#: its arithmetic with their fields among it.
_DAMAGE: Final = (
    *(tarfile.TarError, EOFError, zlib.error, lzma.LZMAError),
    *(ValueError, ArithmeticError, LookupError, RecursionError, MemoryError),
)

#: What the system answers about a link that leads to nothing, or in a circle.
_NOWHERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

_Parts = tuple[str, ...]


def extract(packed: IO[bytes], target: Directory, *, limits: Limits) -> None:
    """Unpack an archive into an empty directory.

    What an archive that is refused has left there is the caller's to remove.
    Raises BadArchive; OSError where the disk fails.
    """
    most = limits.size_bytes + limits.entries * _FRAME + _END
    try:
        _Extraction(target, limits).take(_members(UnpackedTar(packed, most=most)))
    except OSError as error:
        # What comes from the disk has a number; gzip's own errors have none.
        if error.errno is not None:
            raise
        raise BadArchive(f"it is not a .tar.gz that can be read ({error})") from None
    except _DAMAGE as error:
        about = printable(" ".join(str(error).split())) or type(error).__name__
        raise BadArchive(f"it cannot be read ({about}); pack it again") from None


def _members(content: UnpackedTar) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    source: Any = content
    archive = tarfile.TarFile(fileobj=source, mode="r", encoding="utf-8", errors="surrogateescape")
    while (member := archive.next()) is not None:
        yield archive, member
    # The check sum is behind all of it.
    while content.read(LONGEST_READ):
        pass


class _Extraction:
    """One archive's way into a directory."""

    def __init__(self, target: Directory, limits: Limits) -> None:
        self._target = target
        self._limits = limits
        self._bytes_left = limits.size_bytes
        self._entries_left = limits.entries
        self._directories: set[_Parts] = set()
        self._files: set[_Parts] = set()
        self._links: dict[_Parts, str] = {}

    def take(self, members: Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]) -> None:
        """Take all members."""
        with Position(self._target) as position:
            for archive, member in members:
                self._count()
                self._take(archive, member, position)
            for parts, leads_to in self._links.items():
                self._go_to(position, parts[:-1])
                if position.directory.exists(parts[-1]):
                    raise BadArchive(f"{_shown(parts)} is in it twice")
                position.directory.symlink(leads_to, parts[-1])
        for parts in self._links:
            self._require_within(parts)

    def _count(self) -> None:
        self._entries_left -= 1
        if self._entries_left < 0:
            raise BadArchive(f"it has more than {self._limits.entries} entries")

    def _require_within(self, parts: _Parts) -> None:
        """Refuse a link that leads out by way of others. Where it leads need not be there."""
        try:
            open_beneath(Path(f"/proc/self/fd/{self._target.descriptor}"), parts).close()
        except LeadsOut:
            raise BadArchive(f"{_shown(parts)} is a link that leads out of it") from None
        except OSError as error:
            if error.errno not in _NOWHERE:
                raise

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo, position: Position) -> None:
        parts = _parts_of(member.name)
        if len(parts) > self._limits.depth:
            raise _refused(member, f"is more than {self._limits.depth} directories deep")
        if member.isdir():
            self._go_to(position, parts)
            return
        if not parts:
            raise _refused(member, "has no name")
        if parts in self._links or parts in self._files:
            raise _refused(member, "is in it twice")
        if member.issym():
            self._links[parts] = _target_of(member, parts)
            return
        self._go_to(position, parts[:-1])
        if position.directory.exists(parts[-1]):
            raise _refused(member, "is in it twice")
        if member.islnk():
            self._link(member, parts, position.directory)
        elif member.isreg() and not member.issparse():
            self._write(archive, member, position.directory, parts[-1])
        else:
            what = "has holes" if member.issparse() else "is a device, a pipe or the like"
            raise _refused(member, what)
        self._files.add(parts)

    def _go_to(self, position: Position, parts: _Parts) -> None:
        for end in range(1, len(parts) + 1):
            if parts[:end] in self._links:
                raise BadArchive(f"{_shown(parts)} leads through a link of its own")
            if parts[:end] not in self._directories:
                # Those that have no entry of their own are made as well.
                self._count()
                self._directories.add(parts[:end])
        try:
            position.follow(parts)
        except NotADirectoryError:
            raise BadArchive(f"{_shown(parts)} is both a file and a directory") from None

    def _write(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, directory: Directory, name: str
    ) -> None:
        if not 0 <= member.size <= self._bytes_left:
            raise BadArchive(f"its files have more than {self._limits.size_bytes} bytes")
        self._bytes_left -= member.size
        content = archive.extractfile(member)
        assert content is not None
        mode = member.mode & _MODE | _OWNER_MODE
        with content, directory.create(name, mode) as file:
            while block := content.read(_COPY):
                file.write(block)

    def _link(self, member: tarfile.TarInfo, parts: _Parts, directory: Directory) -> None:
        """Make a second name of a file that is there already."""
        source = _parts_of(member.linkname)
        if source not in self._files:
            raise _refused(member, "is a link to something that is not before it in the archive")
        with Position(self._target) as position:
            position.follow(source[:-1])
            position.directory.link(source[-1], directory, parts[-1])


def _parts_of(name: str) -> _Parts:
    """Return the parts of a name below the directory. Raises BadArchive."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise BadArchive(f"{quoted(printable(name))} leads out of it")
    if any(len(part.encode("utf-8", "surrogateescape")) > _MAX_NAME for part in parts):
        raise BadArchive(f"{quoted(printable(name))} has a part of more than {_MAX_NAME} bytes")
    return parts


def _target_of(member: tarfile.TarInfo, parts: _Parts) -> str:
    """Return where a symbolic link leads. Raises BadArchive unless that is in the directory."""
    leads_to = member.linkname
    place = posixpath.normpath(posixpath.join(*parts[:-1], leads_to))
    if leads_to.startswith("/") or place == ".." or place.startswith("../"):
        raise _refused(member, "is a link that leads out of it")
    if not leads_to or "\0" in leads_to or len(leads_to) > _MAX_TARGET:
        raise _refused(member, "is a link that leads nowhere")
    return leads_to


def _shown(parts: _Parts) -> str:
    return quoted(printable("/".join(parts)))


def _refused(member: tarfile.TarInfo, what: str) -> BadArchive:
    return BadArchive(f"{quoted(printable(member.name))} {what}")
