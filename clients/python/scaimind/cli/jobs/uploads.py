"""What of this machine a submission names, brought to the drive first.

Each file and folder has a place of its own by its content, below `uploads/`: what
is there already is not sent again, and nothing that is there ever changes.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from scaimind.cli.main import CommandError, say
from scaimind.cli.output import printable
from scaimind.cli.status_line import StatusLine, bar, size

if TYPE_CHECKING:
    from scaimind.blocking.files import Files
    from scaimind.selection import Selection

#: What is uploaded without a question: bytes, and files.
MAX_BYTES: Final = 100_000_000
MAX_FILES: Final = 2000
#: Left-out names that are told.
_TOLD: Final = 5


@dataclass(slots=True)
class _Upload:
    """Something of this machine, and the field that names it."""

    holder: dict[str, Any]
    key: str
    path: Path
    #: Whether a folder is sent as one file.
    packed: bool


@dataclass(slots=True)
class _Pending:
    """What has to be sent: `send` does it, and returns its place."""

    upload: _Upload
    size: int
    count: int
    send: Callable[[StatusLine], str]


@dataclass(slots=True)
class Uploads:
    """Everything of this machine that a submission names."""

    wanted: list[_Upload] = field(default_factory=list)

    def add(self, holder: dict[str, Any], key: str, beside: Path, *, packed: bool = False) -> None:
        """Have what a field names uploaded, unless it has a scheme; relative to `beside`.

        An absolute path that is not on this machine may be one that the
        coordinator allows. Raises CommandError if a relative one is not there.
        """
        name = str(holder[key])
        if "://" in name:
            return
        path = beside / name
        if not path.exists():
            if path.is_absolute():
                return
            raise CommandError(f"{path}: there is no such file or folder.")
        if not (path.is_file() or path.is_dir()):
            raise CommandError(f"{path}: is neither a file nor a folder.")
        self.wanted.append(_Upload(holder, key, path, packed))

    def announce(self) -> None:
        """Say what would be uploaded."""
        for each in self.wanted:
            say(f"Would upload {printable(str(each.path))}.")

    def carry_out(self, files: "Files", *, yes: bool) -> None:
        """Upload what is not there yet, and set the fields to where it is.

        Over MAX_BYTES or MAX_FILES it asks first; without a terminal it raises
        CommandError then, unless `yes`.
        """
        if not self.wanted:
            return
        root = files.folder().uri.rstrip("/")
        pending = []
        for each in self.wanted:
            found = _folder(files, each) if each.path.is_dir() else _file(files, each)
            if isinstance(found, str):
                each.holder[each.key] = f"{root}/{found}"
            else:
                pending.append(found)
        whole, count = sum(each.size for each in pending), sum(each.count for each in pending)
        if not yes and (whole > MAX_BYTES or count > MAX_FILES):
            _ask(f"{count:,} files with {whole / 1e6:,.1f} MB are to be uploaded")
        with StatusLine() as line:
            for waiting in pending:
                upload = waiting.upload
                line.show(f"Uploading {printable(upload.path.resolve().name)}")
                upload.holder[upload.key] = f"{root}/{waiting.send(line)}"
        if pending:
            names = ", ".join(each.upload.path.resolve().name for each in pending)
            say(f"Uploaded {printable(names)} ({whole / 1e6:,.1f} MB)")


def _file(files: "Files", upload: _Upload) -> str | _Pending:
    """Return the place of a file that is there, or how to send it."""
    from scaimind.archive import digest_of

    path = upload.path
    place = f"uploads/{digest_of(path)[:40]}/{path.name}"
    if _is_there(files, place):
        return place
    return _Pending(upload, path.stat().st_size, 1, lambda line: _put(files, path, place, line))


def _folder(files: "Files", upload: _Upload) -> str | _Pending:
    """Return the place of a folder that is there, or how to send it."""
    from scaimind.archive import digest_of_all, hashed, pack
    from scaimind.selection import select

    found = select(upload.path)
    _say_left_out(found)
    if not found.files:
        raise CommandError(f"{upload.path}: there is no file to upload.")
    digest = digest_of_all(map(hashed, found.files))[:40]
    name = upload.path.resolve().name or "folder"
    place = f"uploads/{digest}/{name}"
    if upload.packed:
        place += ".tar.gz"
        if _is_there(files, place):
            return place

    def send(line: StatusLine) -> str:
        if not upload.packed:
            files.sync(found.files, place, progress=line.show)
            return place
        with tempfile.NamedTemporaryFile(prefix="scaimind-", suffix=".tar.gz") as packed:
            pack(found.files, packed)
            packed.flush()
            return _put(files, Path(packed.name), place, line)

    return _Pending(upload, found.size, len(found.files), send)


def _is_there(files: "Files", place: str) -> bool:
    from scaimind.errors import NotFound

    try:
        files.get(place)
    except NotFound:
        return False
    return True


def _put(files: "Files", path: Path, place: str, line: StatusLine) -> str:
    from scaimind.errors import Conflict

    whole = path.stat().st_size
    name = printable(place.rpartition("/")[2])

    def tell(sent: int) -> None:
        line.show(f"{bar(sent / max(whole, 1))} {size(sent)} of {size(whole)}  {name}")

    try:
        files.upload(path, place, only_new=True, progress=tell)
    except Conflict:
        # Somebody else has just stored the same.
        if not _is_there(files, place):
            raise
    return place


def _say_left_out(found: "Selection") -> None:
    for each in found.left_out[:_TOLD]:
        say(f"Left out {printable(each)}.")
    if len(found.left_out) > _TOLD:
        say(f"Left out {len(found.left_out) - _TOLD} more of that kind.")


def _ask(what: str) -> None:
    if not sys.stdin.isatty():
        raise CommandError(
            f"{what}. Name what is not needed in .scaimindignore, or confirm with --yes."
        )
    click.confirm(f"{what}. Go on?", abort=True, err=True)
