"""The npz format, a ZIP archive of .npy files, read and written array by array.

`numpy.load` believes what the headers say, and `numpy.savez` takes all arrays
at once. Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import io
import math
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import IO, Any, Final
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from app.coordinator.data.conversion.errors import CannotConvert
from app.coordinator.data.conversion.safetensors_files import BLOCK
from app.coordinator.data.unpacking import ALWAYS, MAX_RATIO
from app.shortening import quoted, shortened

_SUFFIX: Final = ".npy"
#: Arrays of one file.
MAX_ARRAYS: Final = 100_000
#: As many as NumPy 1 has.
MAX_DIMENSIONS: Final = 32
#: Bytes of an array's name.
_MAX_NAME: Final = 4096
#: Bytes of a header that is still read, and of an array's header with what is before it.
_MAX_HEADER: Final = 10_000
#: Files of a ZIP archive are dated; these are the same whenever they are written.
_DATE: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Array:
    """An array of a file: what it is, and where it begins in its member."""

    name: str
    dtype: Any
    shape: tuple[int, ...]
    fortran_order: bool
    size: int
    member: ZipInfo
    offset: int


class NpzFile:
    """A file that was checked: every array has the size that it says, and all have bounds."""

    def __init__(self, file: IO[bytes]) -> None:
        """Read what arrays there are; none is unpacked. Raises CannotConvert, and what
        zipfile and numpy raise for damaged content."""
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        self._archive = ZipFile(file)
        members = self._archive.infolist()
        if len(members) > MAX_ARRAYS:
            raise CannotConvert(f"it has {len(members)} arrays, more than {MAX_ARRAYS}")
        limit = max(ALWAYS, MAX_RATIO * size)
        if (total := sum(member.file_size for member in members)) > limit:
            raise CannotConvert(
                f"it unpacks to {total} bytes, more than {limit};"
                " save it with numpy.savez instead of savez_compressed"
            )
        self.arrays = [self._look(member) for member in members]
        names = {array.name for array in self.arrays}
        if len(names) < len(self.arrays):
            raise CannotConvert("two of its arrays have the same name; write it again")

    def _look(self, member: ZipInfo) -> Array:
        from numpy.lib import format as npy

        name = member.filename.removesuffix(_SUFFIX)
        if name == member.filename:
            raise CannotConvert(f"its {quoted(name)} is not an array; save arrays alone in it")
        with self._archive.open(member) as file:
            version = npy.read_magic(file)
            if version == (1, 0):
                about = npy.read_array_header_1_0(file, max_header_size=_MAX_HEADER)
            elif version == (2, 0):
                about = npy.read_array_header_2_0(file, max_header_size=_MAX_HEADER)
            else:
                raise CannotConvert(f"its array {quoted(name)} has version {version} of .npy")
            shape, fortran_order, dtype = about
            offset = file.tell()
        if dtype.hasobject:
            raise CannotConvert(
                f"its array {quoted(name)} holds Python objects, which are never unpickled;"
                " save it as numbers or texts"
            )
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size != member.file_size - offset:
            raise CannotConvert(
                f"its array {quoted(name)} of shape {shortened(str(shape), 64)} should have"
                f" {size} bytes, and has {member.file_size - offset}; write it again"
            )
        return Array(name, dtype, shape, fortran_order, size, member, offset)

    def blocks(self, array: Array) -> Iterator[bytes]:
        """Yield an array's bytes, little-endian, row by row."""
        import numpy as np

        swapped = array.dtype.newbyteorder("<")
        if array.fortran_order and len(array.shape) > 1:
            # Its rows are spread over all of it.
            rows = self.whole(array)
            count = max(BLOCK * len(rows) // max(array.size, 1), 1)
            for start in range(0, len(rows), count):
                yield rows[start : start + count].astype(swapped, order="C").tobytes()
            return
        for piece in self._pieces(array):
            if array.dtype == swapped:
                yield piece
            else:
                yield np.frombuffer(piece, dtype=array.dtype).astype(swapped).tobytes()

    def whole(self, array: Array) -> Any:
        """Return an array in memory."""
        import numpy as np

        order: Any = "F" if array.fortran_order else "C"
        content = bytearray()
        for piece in self._pieces(array):
            content += piece
        flat = np.frombuffer(content, dtype=array.dtype)
        return flat.reshape(array.shape, order=order)

    def _pieces(self, array: Array) -> Iterator[bytes]:
        """Yield an array's bytes as they are, in pieces of whole elements."""
        size = max(BLOCK // array.dtype.itemsize, 1) * array.dtype.itemsize
        left = array.size
        with self._archive.open(array.member) as file:
            file.read(array.offset)
            while left:
                piece = _exactly(file, min(size, left))
                left -= len(piece)
                yield piece
            # The end of the member is where its checksum is compared.
            file.read(1)


def _exactly(file: IO[bytes], size: int) -> bytes:
    pieces = []
    while size:
        piece = file.read(size)
        if not piece:
            raise CannotConvert("it is truncated; write it again")
        size -= len(piece)
        pieces.append(piece)
    return b"".join(pieces)


class NpzWriter:
    """Writes arrays into a file, one after the other. A context manager."""

    def __init__(self, target: IO[bytes]) -> None:
        self._archive = ZipFile(target, "w", ZIP_STORED)
        self._names: set[str] = set()

    def __enter__(self) -> "NpzWriter":
        """Nothing more to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write the list of what is in it."""
        self._archive.close()

    def add(self, name: str, dtype: Any, shape: tuple[int, ...], blocks: Iterable[bytes]) -> None:
        """Write an array whose bytes come row by row. Raises CannotConvert, OSError."""
        from numpy.lib import format as npy

        if len(shape) > MAX_DIMENSIONS:
            raise CannotConvert(
                f"its tensor {quoted(name)} has {len(shape)} dimensions, and an array has at most"
                f" {MAX_DIMENSIONS}"
            )
        member = ZipInfo(self._member(name), _DATE)
        member.external_attr = 0o600 << 16
        about = {
            "descr": npy.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": shape,
        }
        with closing(self._archive.open(member, "w", force_zip64=True)) as file:
            npy.write_array_header_1_0(file, about)
            for block in blocks:
                file.write(block)

    def _member(self, name: str) -> str:
        """The name of an array's file. Raises CannotConvert unless it can be unpacked anywhere."""
        parts = name.split("/")
        plain = name.isprintable() and not any(part in ("", ".", "..") for part in parts)
        if not plain or len(name.encode(errors="replace")) > _MAX_NAME:
            raise CannotConvert(
                f"its tensor {quoted(name)} cannot be the name of a file in an archive; rename it"
            )
        # numpy.load finds an array `x.npy` under the name of `x`.
        if {name, name + _SUFFIX, name.removesuffix(_SUFFIX)} & self._names:
            raise CannotConvert(
                f"its tensor {quoted(name)} cannot be told from another one in npz; rename it"
            )
        self._names.add(name)
        return name + _SUFFIX
