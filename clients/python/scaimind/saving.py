"""A file that is fetched: there whole or not at all."""

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self


class Saving:
    """Writes beside a path; left without an exception, it puts the file there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        descriptor, self._beside = tempfile.mkstemp(
            prefix=f".{path.name[:50]}.", suffix=".part", dir=path.parent
        )
        self._file = os.fdopen(descriptor, "wb")

    def write(self, piece: bytes) -> None:
        """Write more of it."""
        self._file.write(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._file.close()
            if kind is None:
                # Of a temporary file, others may read nothing.
                os.chmod(self._beside, 0o666 & ~_umask())
                os.replace(self._beside, self._path)
        finally:
            Path(self._beside).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
