"""Data sources, really parsed: are they there, and is every record good?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.coordinator.data.data_files import DataFile, data_files
from app.coordinator.data.drive import BadUrl, Drive, DriveFileSystem, shown
from app.coordinator.data.preview import Preview
from app.coordinator.data.readers import READERS, Tally, format_of, read
from app.coordinator.data.text import BadData
from app.coordinator.identity.access import Access
from app.shortening import quoted, shortened

#: What a size or a count can be in the contract (int64): holes in files make sizes of any sum.
_MOST: Final = 2**63 - 1
#: Characters of an error message.
_MAX_MESSAGE: Final = 2000


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about a source."""

    accessible: bool
    size_bytes: int = 0
    #: Good records, up to the first bad one.
    record_count: int = 0
    format: str = ""
    #: Empty if the source is good.
    error_message: str = ""
    #: The first good records, see `preview`.
    preview: Sequence[str] = ()


def examine(
    drive: Drive,
    access: Access,
    *,
    url: str,
    format_name: str,
    columns: Sequence[str],
    preview: int = 0,
) -> Finding:
    """Parse all of a source, in memory bounded by its longest record. Blocks.

    `preview` is how many records are to be shown. A directory is the files in
    it, all of one format. Raises NoReader.
    """
    files = drive.filesystem(access)
    try:
        found = data_files(files, url)
    except BadUrl as error:
        return Finding(
            accessible=False, format=shortened(format_name, 32), error_message=in_words(str(error))
        )
    size = sum(file.size_bytes for file in found)
    tally = Tally(preview=Preview(preview))
    known = format_name
    accessible = True
    problem = ""
    try:
        if not found:
            raise BadData("the directory has no files")
        known = known or _format(found)
        if known not in READERS:
            raise BadData(f"format {quoted(known, 32)} is not one of {', '.join(READERS)}")
        for file in found:
            _read(files, file, known, columns, tally)
        if not tally.records:
            raise BadData("it has no records")
    except BadData as error:
        problem = str(error)
    except BadUrl as error:
        accessible, problem = False, str(error)
    return Finding(
        accessible,
        min(size, _MOST),
        min(tally.records, _MOST),
        shortened(known, 32),
        in_words(problem),
        tuple(tally.preview.records),
    )


def in_words(problem: str) -> str:
    """A problem as it can be told: of bounded length, in UTF-8 whatever a name in it is."""
    return shortened(problem.encode(errors="backslashreplace").decode(), _MAX_MESSAGE)


def _read(
    files: DriveFileSystem, file: DataFile, known: str, columns: Sequence[str], tally: Tally
) -> None:
    """Add a file's records. Raises BadData that names the file if it is one of several."""
    own = Tally(preview=tally.preview)
    try:
        with files.open(file.url) as opened:
            read(opened, name=file.url, format_name=known, columns=columns, tally=own)
    except BadData as error:
        raise BadData(f"{shown(file.name)}: {error}" if file.name else str(error)) from None
    except OSError as error:
        raise BadUrl(f"{shown(file.url)} cannot be read: {error.strerror or error}") from None
    finally:
        tally.records += own.records


def _format(found: Sequence[DataFile]) -> str:
    """The one format that the names tell. Raises BadData."""
    named = {format_of(file.url): file.name for file in found}
    if "" in named:
        of = f" of {shown(named[''])}" if named[""] else ""
        raise BadData(
            f"the format{of} cannot be determined from its name; set one of {', '.join(READERS)}"
        )
    if len(named) > 1:
        raise BadData(
            f"its files have several formats ({', '.join(sorted(named))}); give one,"
            " or name them one by one"
        )
    return next(iter(named))
