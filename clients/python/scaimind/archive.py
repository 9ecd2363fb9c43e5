"""A folder as one file, and content by its digest."""

import gzip
import hashlib
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from scaimind.core.files import LocalFile
from scaimind.errors import FileChanged
from scaimind.selection import SelectedFile


def hashed(file: SelectedFile) -> LocalFile:
    """Return a file with its digest."""
    return LocalFile(file.name, file.path, file.size, digest_of(file.path))


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_all(files: Iterable[LocalFile]) -> str:
    """Return one SHA-256 of the names and the content of files, in hex."""
    whole = hashlib.sha256()
    for file in sorted(files, key=lambda each: each.name):
        whole.update(f"{file.digest} {len(file.name.encode())} {file.name}\n".encode())
    return whole.hexdigest()


def pack(files: Iterable[SelectedFile], into: IO[bytes]) -> None:
    """Write files as a .tar.gz. The same files give the same bytes: times and owners are left
    out. Raises `FileChanged` if one is shorter than it was."""
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=into, compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for file in files:
            entry = tarfile.TarInfo(file.name)
            entry.size = file.size
            entry.mode = 0o755 if file.executable else 0o644
            try:
                with file.path.open("rb") as content:
                    archive.addfile(entry, content)
            except OSError as error:
                if error.filename is not None:
                    raise
                # What tarfile says of a file that ends too early.
                raise FileChanged(f"{file.path} became shorter while it was read.") from error
