"""The content of a packed tar, read forward only, within bounds.

`tarfile` reads a header into memory as a whole, however long it says it is; a
file's content it reads in the pieces that are asked for. So no single read may
be long: that bounds its headers.
"""

import gzip
from typing import IO, Final

#: Bytes of the longest read, and so of a header: a path of 4,096 bytes and some attributes fit.
LONGEST_READ: Final = 1024 * 1024


class BadArchive(Exception):
    """An archive that is not unpacked. The message is a phrase for whoever made it."""


class UnpackedTar:
    """What `tarfile.TarFile` reads from. Raises BadArchive, OSError, and gzip's own errors."""

    def __init__(self, packed: IO[bytes], *, most: int) -> None:
        """`most` are the bytes that it may unpack to."""
        self._source = gzip.GzipFile(fileobj=packed, mode="rb")
        self._most = most
        self._at = 0

    def tell(self) -> int:
        """Return how many bytes were read or passed over."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, fewer only at the end."""
        if not 0 <= size <= LONGEST_READ:
            raise BadArchive(f"it has a header of more than {LONGEST_READ} bytes")
        data = self._source.read(size)
        self._at += len(data)
        if self._at > self._most:
            raise BadArchive(f"it unpacks to more than {self._most} bytes")
        return data

    def seek(self, offset: int) -> None:
        """Go forward, to the end at most."""
        if offset < self._at:
            raise BadArchive("it leads back to a place before its headers")
        while self._at < offset and self.read(min(offset - self._at, LONGEST_READ)):
            pass
