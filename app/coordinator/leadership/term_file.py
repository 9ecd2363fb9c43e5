"""The newest term that is known in a data directory, as the file `term.json`.

A term is a number that grows with each take-over. Whoever acts on runs for a
lower term than the file's was replaced meanwhile.
"""

from pathlib import Path
from typing import Final

from app.coordinator.failures import LeadershipLost
from app.coordinator.storage.locks import locked
from app.files.json_files import read_json, write_json

_NAME: Final = "term.json"


class TermFile:
    """The file, which every coordinator and runner of a data directory reads. Blocks shortly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, data_dir: Path) -> "TermFile":
        """Return that of a data directory."""
        return cls(data_dir / _NAME)

    def read(self) -> int:
        """Return the newest term; 0 if there was none. Raises OSError, ValueError."""
        try:
            known = read_json(self.path)
            return 0 if known is None else int(known["term"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path} has no term: {error}") from None

    def raise_to(self, term: int) -> None:
        """Make a term the newest. Raises LeadershipLost if a higher one is known, OSError,
        ValueError."""
        with locked(self.path.with_suffix(".lock"), wait=True):
            newest = self.read()
            if newest > term:
                raise _replaced(newest, term)
            if newest < term:
                write_json(self.path, {"term": term})

    def check(self, term: int) -> None:
        """Raise LeadershipLost if a higher term than this one is known; OSError, ValueError."""
        if (newest := self.read()) > term:
            raise _replaced(newest, term)


def _replaced(newest: int, own: int) -> LeadershipLost:
    return LeadershipLost(f"term {newest} has begun, and this coordinator leads for term {own}")
