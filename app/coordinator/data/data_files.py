"""What a data source is made of: one file, or the files of a directory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from app.coordinator.data.drive import BadUrl, DriveFileSystem, shown

#: Most files that one source may have, and how deep its directories may be.
MAX_FILES: Final = 100_000
MAX_DEPTH: Final = 16


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of a source."""

    url: str
    #: Below the source's directory; empty if the file is the source.
    name: str
    size_bytes: int
    #: Changes with the file.
    version: tuple[int, int, int]


def data_files(files: DriveFileSystem, url: str) -> list[DataFile]:
    """The files of a source, by name; those that begin with `.` or `_` are passed over.

    Raises BadUrl if the source or one of its files cannot be reached.
    """
    about = files.info(url)
    if about["type"] == "file":
        return [_data_file(about, "")]
    if about["type"] != "directory":
        raise BadUrl(f"{shown(url)} is neither a file nor a directory")
    found = []
    for about in _below(files, url.rstrip("/"), MAX_DEPTH):
        found.append(_data_file(about, about["name"].removeprefix(url.rstrip("/") + "/")))
        if len(found) > MAX_FILES:
            raise BadUrl(f"{shown(url)} has more than {MAX_FILES} files")
    return sorted(found, key=lambda file: file.name)


def _below(files: DriveFileSystem, url: str, depth: int) -> Iterator[dict[str, Any]]:
    if depth == 0:
        raise BadUrl(f"{shown(url)} is more than {MAX_DEPTH} directories deep")
    try:
        entries = files.ls(url, detail=False)
    except OSError as error:
        raise BadUrl(f"{shown(url)} cannot be listed: {error.strerror}") from None
    for entry in entries:
        if entry.rpartition("/")[2].startswith((".", "_")):
            continue
        about = files.info(entry)
        if about["type"] == "directory":
            yield from _below(files, entry, depth - 1)
        elif about["type"] == "file":
            yield about


def _data_file(about: dict[str, Any], name: str) -> DataFile:
    version = (about["size"], about["mtime_ns"], about["ino"])
    return DataFile(about["name"], name, about["size"], version)
