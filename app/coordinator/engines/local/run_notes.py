"""Lines that the coordinator has the runner say in the job's log while the run goes on.

The runner alone writes the log. So the coordinator appends what it has to say to
a file of the run, one JSON string a line, and the runner reads it there, says
it, and writes down how far it has come. What it has not said when the run is over
the coordinator says itself. Neither file can be written by the job.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import orjson

from app.coordinator.logs.log import LogReader
from app.coordinator.storage.job_directory import RunDir
from app.files.json_files import read_json, write_json

#: Bytes that the notes of a run may have.
MOST_BYTES: Final = 64 * 1024
#: Entries at the end of a log among which a note is looked for that may have been said.
_NEWEST: Final = 200


def leave_note(directory: RunDir, text: str) -> bool:
    """Append a note, unless it is there. Returns whether it is; False if there is no room.

    Raises OSError.
    """
    notes, size = read_notes(directory)
    if text in notes:
        return True
    line = orjson.dumps(text) + b"\n"
    if size + len(line) > MOST_BYTES:
        return False
    file = os.open(
        directory.notes,
        os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
        0o600,
    )
    try:
        # What a full disk cut off goes: the next one begins a line.
        os.ftruncate(file, size)
        # A disk that becomes full takes a part, and refuses the rest.
        written = 0
        while written < len(line):
            written += os.write(file, line[written:])
    finally:
        os.close(file)
    return True


def read_notes(directory: RunDir, *, after: int = 0) -> tuple[list[str], int]:
    """The notes behind `after` bytes that are whole, and how many bytes they end at.

    Raises OSError.
    """
    try:
        with open(directory.notes, "rb") as file:
            file.seek(after)
            content = file.read(MOST_BYTES)
    except FileNotFoundError:
        return [], after
    whole = content[: content.rfind(b"\n") + 1]
    return list(_texts(whole)), after + len(whole)


def _texts(lines: bytes) -> Iterator[str]:
    """The notes in whole lines. A line that is damaged is passed over."""
    for line in lines.splitlines():
        with suppress(ValueError):
            if isinstance(text := orjson.loads(line), str):
                yield text


def mark_said(directory: RunDir, size: int) -> None:
    """Write down that the notes up to `size` bytes were said. Raises OSError."""
    write_json(directory.notes_said, {"bytes": size})


def notes_not_said(directory: RunDir) -> tuple[list[str], int]:
    """The notes that a run whose runner is gone has not said, and the size that has then been.

    Raises OSError.
    """
    said = (read_json(directory.notes_said) or {}).get("bytes", 0)
    notes, size = read_notes(directory, after=said)
    if notes:
        # It may have been killed between saying one and writing that down.
        with suppress(FileNotFoundError), LogReader(directory.job.log) as log:
            start = log.locate(max(log.last_offset() - _NEWEST, 0))
            newest = log.read(start, limit=_NEWEST).entries
            own = {entry.message for entry in newest if entry.source == "coordinator"}
            notes = [note for note in notes if note not in own]
    return notes, size
