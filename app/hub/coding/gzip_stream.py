"""gzip (RFC 1952) of streams that get the same bytes in part, which are deflated once.

Each stream is one member: its own header, pieces of deflate (RFC 1951) that each end
at a byte's boundary and refer to nothing before them, and its own trailer. A piece
is therefore good for every stream, wherever that began. Members of their own in place
of pieces, or a window that pieces share, are not: browsers read the first
member alone, and who joins later lacks the window.
"""

import struct
import zlib
from typing import Final

from app.hub.coding.crc32 import shifted

#: RFC 1952, 2.3: deflate, no name, no time, an unknown system. It is marked as text, which
#: decoders pass over: by that `check-ingress` tells it from what proxies make.
HEADER: Final = b"\x1f\x8b\x08\x01\x00\x00\x00\x00\x00\xff"
#: RFC 1951, 3.2.3: the last block, of fixed codes, which is empty.
_LAST_BLOCK: Final = b"\x03\x00"
#: Bytes from which a piece is deflated. Below, that costs more than it saves.
WORTH: Final = 1024
#: The least that deflate can do: three times as fast as what it does by itself.
_LEVEL: Final = 1


def piece(data: bytes) -> bytes:
    """Encode some bytes, without a word of what came before; no bytes are no piece."""
    if not data:
        return b""
    if len(data) < WORTH:
        # RFC 1951, 3.2.4: a stored block: its length, and that inverted.
        return b"\x00%b%b" % (struct.pack("<HH", len(data), len(data) ^ 0xFFFF), data)
    deflating = zlib.compressobj(_LEVEL, wbits=-zlib.MAX_WBITS)
    return deflating.compress(data) + deflating.flush(zlib.Z_SYNC_FLUSH)


class SharedPieces:
    """The pieces that all who follow get."""

    __slots__ = ("checksum", "length")

    def __init__(self) -> None:
        #: Of all pieces together: their CRC-32, and their bytes before encoding.
        self.checksum = 0
        self.length = 0

    def take(self, data: bytes) -> bytes:
        """Encode some bytes, which everybody who follows is sent from now on."""
        self.checksum = zlib.crc32(data, self.checksum)
        self.length += len(data)
        return piece(data)


class GzipStream:
    """One stream: what it sent so far, its trailer.

    What it is sent while it follows others' pieces is added when it stops following, and so
    costs it nothing each time.
    """

    __slots__ = ("_checksum", "_followed", "_length", "_seen_checksum", "_seen_length")

    def __init__(self) -> None:
        self._checksum = 0
        self._length = 0
        self._followed: SharedPieces | None = None
        #: How far what it follows was when that was last added.
        self._seen_checksum = 0
        self._seen_length = 0

    @property
    def followed(self) -> SharedPieces | None:
        """Whose pieces it is sent."""
        return self._followed

    def follow(self, shared: SharedPieces) -> None:
        """Be sent all pieces that are taken from now on, in place of those followed so far."""
        self.part()
        self._followed = shared
        self._seen_checksum, self._seen_length = shared.checksum, shared.length

    def part(self) -> None:
        """Be sent no more pieces of others."""
        self._add_followed()
        self._followed = None

    def compress(self, data: bytes, /) -> bytes:
        """Encode some bytes for this stream alone."""
        self.count(data)
        return piece(data)

    def count(self, data: bytes) -> None:
        """Note bytes that it is sent as a piece which somebody else has made."""
        self._add_followed()
        self._checksum = zlib.crc32(data, self._checksum)
        self._length += len(data)

    def flush(self) -> bytes:
        """Return the end of the stream; nothing may be sent behind it."""
        self._add_followed()
        return _LAST_BLOCK + struct.pack("<II", self._checksum, self._length & 0xFFFFFFFF)

    def _add_followed(self) -> None:
        shared = self._followed
        if shared is None:
            return
        if added := shared.length - self._seen_length:
            # Both began differently and went on alike: the difference is only shifted.
            apart = self._checksum ^ self._seen_checksum
            self._checksum = shifted(apart, added) ^ shared.checksum
            self._length += added
            self._seen_checksum, self._seen_length = shared.checksum, shared.length
