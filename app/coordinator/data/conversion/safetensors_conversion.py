"""One file of arrays as a file of another format."""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, Final

from app.coordinator.data.conversion.errors import CannotConvert
from app.coordinator.data.conversion.npz_files import Array, NpzFile, NpzWriter
from app.coordinator.data.conversion.safetensors_files import (
    SafetensorsFile,
    Source,
    write_safetensors,
)
from app.coordinator.data.conversion.texts import array_of, text_of
from app.shortening import quoted, shortened

#: Bytes of the arrays of text of one file, four a character: they become one JSON header.
_MAX_TEXT: Final = 64 * 1024 * 1024
#: The dtypes that both formats have, as NumPy calls them.
_SHARED: Final[Mapping[str, str]] = {
    **{"BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "U32": "<u4"},
    **{"I32": "<i4", "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8"},
    **{"C64": "<c8"},
}
_BY_NUMPY: Final = {numpy: dtype for dtype, numpy in _SHARED.items()}


def to_npz(source: IO[bytes], target: IO[bytes]) -> None:
    """Write a safetensors file as npz.

    NumPy has neither BF16 nor F8: they become float32, which has each of their
    values exactly. What else the file says becomes arrays of text. Raises
    CannotConvert, OSError.
    """
    import numpy as np

    file = SafetensorsFile(source, os.fstat(source.fileno()).st_size)
    both = {tensor.name for tensor in file.tensors} & file.metadata.keys()
    if both:
        raise CannotConvert(
            f"{quoted(min(both))} is both a tensor and metadata of it; rename one of them"
        )
    with NpzWriter(target) as writer:
        for tensor in file.tensors:
            blocks = file.blocks(tensor)
            if tensor.dtype in _SHARED:
                writer.add(tensor.name, np.dtype(_SHARED[tensor.dtype]), tensor.shape, blocks)
            elif (widen := _widener(tensor.dtype)) is not None:
                wide = (widen(block) for block in blocks)
                writer.add(tensor.name, np.dtype("<f4"), tensor.shape, wide)
            else:
                raise CannotConvert(
                    f"its tensor {quoted(tensor.name)} has the dtype {tensor.dtype}, which npz"
                    " cannot hold; save it as F8, BF16 or wider"
                )
        for name, text in file.metadata.items():
            array = array_of(text)
            writer.add(name, array.dtype, array.shape, [array.tobytes()])


def to_safetensors(source: IO[bytes], target: IO[bytes]) -> None:
    """Write an npz file as safetensors; arrays of text become its metadata.

    Raises CannotConvert, OSError, and what zipfile and numpy raise for damaged
    content.
    """
    file = NpzFile(source)
    texts = [array for array in file.arrays if array.dtype.kind == "U"]
    if (size := sum(array.size for array in texts)) > _MAX_TEXT:
        raise CannotConvert(
            f"its texts have {size} bytes, but safetensors takes at most {_MAX_TEXT};"
            " save them in a file of their own"
        )
    tensors = [
        Source(array.name, _dtype(array), array.shape, file.blocks(array))
        for array in file.arrays
        if array.dtype.kind != "U"
    ]
    write_safetensors(target, tensors, {array.name: text_of(file.whole(array)) for array in texts})


def _dtype(array: Array) -> str:
    dtype = _BY_NUMPY.get(array.dtype.newbyteorder("<").str)
    if dtype is None:
        raise CannotConvert(
            f"its array {quoted(array.name)} is neither numbers that safetensors knows nor texts,"
            f" but {shortened(str(array.dtype), 64)}; save it as another dtype"
        )
    return dtype


def _widener(dtype: str) -> Callable[[bytes], bytes] | None:
    """What turns elements of a dtype into float32 without loss; None if there is nothing."""
    import numpy as np

    if dtype == "BF16":
        # The upper half of a float32.
        return lambda block: (np.frombuffer(block, "<u2").astype("<u4") << 16).tobytes()
    values = _VALUES.get(dtype)
    if values is None:
        return None
    table = np.array(list(values()), dtype="<f4")
    return lambda block: table[np.frombuffer(block, np.uint8)].tobytes()


def _floats(
    exponent_bits: int, bias: int, *, infinities: bool = False, one_nan: bool = False
) -> Iterator[float]:
    """The values of the 256 floating-point numbers of eight bits.

    With `infinities` the highest exponent is that of infinities and NaN, as in
    IEEE 754; with `one_nan` NaN takes the place of minus zero; otherwise it is
    all bits but the sign (OCP 8-bit floating point specification, 2023; FNUZ:
    https://arxiv.org/abs/2206.02915).
    """
    mantissa_bits = 7 - exponent_bits
    ones = (1 << exponent_bits) - 1
    for number in range(256):
        sign = -1.0 if number & 0x80 else 1.0
        exponent = (number >> mantissa_bits) & ones
        mantissa = number & ((1 << mantissa_bits) - 1)
        if one_nan:
            special = float("nan") if number == 0x80 else None
        elif infinities:
            special = None
            if exponent == ones:
                special = float("nan") if mantissa else sign * float("inf")
        else:
            special = float("nan") if number & 0x7F == 0x7F else None
        if special is not None:
            yield special
        elif exponent:
            fraction = 1 + mantissa / (1 << mantissa_bits)
            yield sign * fraction * 2.0 ** (exponent - bias)
        else:
            yield sign * mantissa / (1 << mantissa_bits) * 2.0 ** (1 - bias)


def _powers() -> Iterator[float]:
    """The values of F8_E8M0: powers of two; the last is NaN."""
    yield from (2.0 ** (number - 127) for number in range(255))
    yield float("nan")


_VALUES: Final[Mapping[str, Callable[[], Iterator[float]]]] = {
    "F8_E4M3": lambda: _floats(4, 7),
    "F8_E5M2": lambda: _floats(5, 15, infinities=True),
    "F8_E4M3FNUZ": lambda: _floats(4, 8, one_nan=True),
    "F8_E5M2FNUZ": lambda: _floats(5, 16, one_nan=True),
    "F8_E8M0": _powers,
}
#: What turns a file into one of a format: the suffix that it converts, and how.
CONVERTERS: Final[Mapping[str, tuple[str, Callable[[Any, Any], None]]]] = {
    "npz": (".safetensors", to_npz),
    "safetensors": (".npz", to_safetensors),
}
