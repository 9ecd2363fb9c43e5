"""Unpacking data files as they are read, within bounds.

A packed file may be damaged anywhere, end too early, or unpack to a million
times its size.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Mapping
from typing import IO, Any, Final, TypeVar

from app.coordinator.data.text import BLOCK

#: What a file may unpack to: this many times its size, or `ALWAYS` bytes if that is more.
MAX_RATIO: Final = 200
ALWAYS: Final = 1024**3

#: What reads Parquet and Zstandard, and how to get it.
NEEDS_PYARROW: Final = (
    "{} needs the package pyarrow, which this coordinator does not have;"
    " install it with: pip install pyarrow"
)

_T = TypeVar("_T")


class NoReader(Exception):
    """A package that reads this is not installed; the message says which."""


class CannotUnpack(Exception):
    """A packed file is damaged, or unpacks to too much; the message says what to do."""


def unpacked_limit(packed: IO[bytes]) -> int:
    """Return the bytes that a file may unpack to; it is at its beginning afterwards."""
    size = packed.seek(0, io.SEEK_END)
    packed.seek(0)
    return max(ALWAYS, MAX_RATIO * size)


class Unpacked(io.RawIOBase):
    """The content of a packed file, which can be sought in and stays open.

    Reading raises CannotUnpack, and OSError where the packed file itself
    cannot be read.
    """

    def __init__(self, packed: IO[bytes], suffix: str) -> None:
        """`suffix` is one of PACKED. Raises NoReader, CannotUnpack, OSError."""
        self._count = 0
        self._limit = unpacked_limit(packed)
        self._source: Any = self._guarded(lambda: _UNPACKERS[suffix](packed))

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, and at most BLOCK; empty at the end."""
        wanted = BLOCK if size < 0 else min(size, BLOCK)
        block: bytes = self._guarded(lambda: self._source.read(wanted))
        self._count += len(block)
        if self._count > self._limit:
            raise CannotUnpack(
                f"it unpacks to more than {self._limit} bytes and {MAX_RATIO} times its size;"
                " if that is meant, unpack it and name the file itself"
            )
        return block

    def _guarded(self, unpack: Callable[[], _T]) -> _T:
        try:
            return unpack()
        except OSError as error:
            # The decoders' own have no number; one that has comes from the packed file.
            if error.errno is not None:
                raise
            reason = str(error)
        except (EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
            reason = str(error)
        raise CannotUnpack(
            f"it cannot be unpacked further ({' '.join(reason.split())}); pack it again"
        )


def _zstd(file: IO[bytes]) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise NoReader(NEEDS_PYARROW.format("Zstandard")) from None
    return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd")


_UNPACKERS: Final[Mapping[str, Callable[[IO[bytes]], Any]]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _zstd,
}
#: The suffixes that tell how a file is packed.
PACKED: Final = tuple(_UNPACKERS)
