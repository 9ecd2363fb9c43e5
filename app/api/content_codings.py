"""Inflating a body as it arrives, in bounded pieces (RFC 9110, 8.4.1)."""

import zlib
from collections.abc import Iterator, Sequence

from app.errors import UNSUPPORTED_MEDIA_TYPE, ApiError

#: RFC 9110, 8.4.1.3: recipients take x-gzip for gzip.
_CODINGS = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
_GZIP_BITS = 16 + zlib.MAX_WBITS

#: Largest piece of content that is inflated at once, in bytes.
_PIECE = 64 * 1024
#: A finished member of a gzip body leaves the rest of its slice to be copied.
_SLICE = 4 * 1024
#: More than any client sends: each costs a decompressor.
_MOST_MEMBERS = 1000


class BadContent(ValueError):
    """The body is not what its coding says."""


class Identity:
    """Content that is sent as it is."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Return the content that is in `data`."""
        yield data

    def finish(self) -> None:
        """Check that the content is complete."""


class Inflater(Identity):
    """gzip (RFC 1952), of one or several members, or deflate (RFC 1950).

    Some clients send deflate without the wrapper of RFC 1950; it is taken, too.
    """

    def __init__(self, coding: str) -> None:
        self._bits = _GZIP_BITS if coding == "gzip" else 0
        self._members = 0
        self._at_work: "zlib._Decompress | None" = None  # noqa: UP037 - a type of the stubs alone

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Return the content that is in `data`, at most 64 KiB at a time.

        Raises `BadContent`. What was not iterated over is lost.
        """
        for start in range(0, len(data), _SLICE):
            rest, full = data[start : start + _SLICE], False
            while rest or full:
                inflating = self._at_work or self._begin(rest[0])
                try:
                    piece = inflating.decompress(rest, _PIECE)
                except zlib.error:
                    raise BadContent from None
                if piece:
                    yield piece
                rest = inflating.unconsumed_tail
                # Content of its own may be behind a full piece, and need no more input.
                full = len(piece) == _PIECE and not inflating.eof
                if inflating.eof:
                    self._at_work = None
                    rest = inflating.unused_data

    def finish(self) -> None:
        """Raise `BadContent` if the body ended before its content did."""
        if self._at_work is not None:
            raise BadContent

    def _begin(self, first: int) -> "zlib._Decompress":
        self._members += 1
        if self._members > (_MOST_MEMBERS if self._bits == _GZIP_BITS else 1):
            raise BadContent
        bits = self._bits
        if not bits:
            # RFC 1950, 2.2: the method in the low four bits of the first byte is 8.
            bits = zlib.MAX_WBITS if first & 0x0F == 8 else -zlib.MAX_WBITS
        self._at_work = zlib.decompressobj(bits)
        return self._at_work


def decoder(headers: Sequence[str]) -> Identity:
    """Return what undoes the codings that these `Content-Encoding` headers name.

    Raises `ApiError` (`UNSUPPORTED_MEDIA_TYPE`) for one that is not known, and
    for several.
    """
    named = [name.strip().lower() for header in headers for name in header.split(",")]
    codings = [name for name in named if name not in ("", "identity")]
    if not codings:
        return Identity()
    if len(codings) > 1 or codings[0] not in _CODINGS:
        raise ApiError(
            UNSUPPORTED_MEDIA_TYPE,
            "The request body has a Content-Encoding that is not supported. Send gzip, deflate "
            "or none.",
        )
    return Inflater(_CODINGS[codings[0]])
