"""Where in a job's log its runs begin: a file beside the entries, of eight bytes for each run.

Logs of earlier coordinators are without it. There the line is looked for with
which each run begins.
"""

import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.coordinator.logs.log import LogReader, decoded

#: The file within the log's directory.
_NAME: Final = "runs"
_OFFSET: Final = struct.Struct("<Q")
#: So many are told: the newest.
MOST: Final = 1000
#: How the source of the coordinator's own lines is written in an entry.
_OWN_SOURCE: Final = b"\x2a\x0bcoordinator"
_BEGINNING: Final = re.compile(r"Run \d+ begins on ")


def create(directory: Path) -> None:
    """Make the file of a log without runs, unless there is one. Raises OSError."""
    (directory / _NAME).touch()


def note_run(directory: Path, offset: int) -> None:
    """Note that a run begins with entry `offset`, which need not be there yet. Raises OSError.

    For the log's one writer. Of a log without the file it is made of the log.
    """
    known = _known(directory)
    if known is None:
        known = find(directory)
        _write(directory, [*known, offset])
    elif known and known[-1] >= offset:
        # The log lost its end, as by a power cut.
        _write(directory, [*(each for each in known if each < offset), offset])
    else:
        _append(directory, offset)


def run_starts(directory: Path, *, last: int) -> list[int] | None:
    """The offsets with which the newest runs begin, up to `last`, ascending; None if they are not
    written down. Raises OSError."""
    known = _known(directory)
    if known is None:
        return None
    ascending: list[int] = []
    for offset in known:
        if (ascending[-1] if ascending else 0) < offset <= last:
            ascending.append(offset)
    return ascending


def find(directory: Path) -> list[int]:
    """Look for the beginnings of runs in the log itself, the newest ones. Raises OSError.

    Reads all of it, some hundred MB in a second.
    """
    found: list[int] = []
    with LogReader(directory) as log:
        looks = log.scan_before(
            log.last_offset() + 1, min_level=0, wanted=lambda data: _OWN_SOURCE in data
        )
        for look in looks:
            if look.piece is None or _OWN_SOURCE not in look.piece.data:
                continue
            found += (
                entry.offset
                for entry in reversed(decoded(look.piece))
                if entry is not None
                and entry.source == "coordinator"
                and _BEGINNING.match(entry.message)
            )
            if len(found) >= MOST:
                break
    return found[:MOST][::-1]


def keep_found(directory: Path) -> list[int]:
    """Write down what `find` finds, and return it. For the log's one writer. Raises OSError."""
    found = find(directory)
    _write(directory, found)
    return found


def _known(directory: Path) -> list[int] | None:
    try:
        file = os.open(directory / _NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        count = os.fstat(file).st_size // _OFFSET.size
        first = max(count - MOST, 0)
        data = os.pread(file, MOST * _OFFSET.size, first * _OFFSET.size)
    finally:
        os.close(file)
    whole = len(data) - len(data) % _OFFSET.size
    return [offset for (offset,) in _OFFSET.iter_unpack(data[:whole])]


def _append(directory: Path, offset: int) -> None:
    path = directory / _NAME
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        # Half an offset at the end is what a power cut left.
        end = os.fstat(file).st_size // _OFFSET.size * _OFFSET.size
        os.pwrite(file, _OFFSET.pack(offset), end)
    finally:
        os.close(file)


def _write(directory: Path, offsets: Sequence[int]) -> None:
    fresh = directory / f"{_NAME}.new"
    fresh.write_bytes(b"".join(map(_OFFSET.pack, offsets)))
    fresh.replace(directory / _NAME)
