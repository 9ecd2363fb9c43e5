"""How far the record of changes had come, in a file beside the database.

The database alone cannot tell that it was put back: what `cp` writes over it keeps
its inode, and says of itself what it said when it was copied. So each commit is noted
beside it. The note may lack the newest commits, and never has more than there was.

A snapshot of the file system that is put back has both as they were, with all of the
system's times. Nothing within it tells that from a coordinator that was stopped; so the
note counts for a while only. Whoever puts a younger one back removes the note.
"""

import os
import time
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

log = structlog.get_logger("scaimind.coordinator")

#: Bytes of the note. It always has them: another one in its place needs no room.
_SIZE: Final = 128
#: Nanoseconds by which the file's change may differ from what the note says.
_TOLERANCE: Final = 1_000_000_000
#: Nanoseconds for which a note counts: longer than a restart takes, shorter than it is worth to
#: put a snapshot back.
_VALID: Final = 15 * 60 * 1_000_000_000
_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


class Witness:
    """The note. Its calls block shortly, and raise no OSError: without a note, epochs are new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        try:
            self._file = os.open(path, _OPEN, 0o640)
        except OSError as error:
            self._failed(error)

    def confirms(self, epoch: str, changes: int) -> bool:
        """Return whether a record in this epoch, with so many changes, lacks none that were noted.

        A note that was put back itself confirms nothing: the system's time of its
        last change, which nobody can set, is not its own then. Nor does an old one.
        """
        if self._file is None:
            return False
        try:
            noted: dict[str, Any] = orjson.loads(os.pread(self._file, _SIZE, 0))
            written_at = noted["written_at"]
            differ = os.fstat(self._file).st_ctime_ns - written_at
            return bool(
                noted["epoch"] == epoch
                and noted["changes"] <= changes
                and abs(differ) < _TOLERANCE
                and time.time_ns() - written_at < _VALID
            )
        except OSError as error:
            self._failed(error)
            return False
        except (ValueError, KeyError, TypeError):
            return False

    def note(self, epoch: str, changes: int) -> None:
        """Note that so many changes of this epoch are stored."""
        if self._file is None:
            return
        about = {"epoch": epoch, "changes": changes, "written_at": time.time_ns()}
        try:
            os.pwrite(self._file, orjson.dumps(about).ljust(_SIZE), 0)
        except OSError as error:
            self._failed(error)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _failed(self, error: OSError) -> None:
        log.warning("changes_not_noted", file=self._path.name, reason=error.strerror)
