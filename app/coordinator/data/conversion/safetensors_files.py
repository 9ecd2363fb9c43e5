"""The safetensors format, read and written tensor by tensor.

    8 bytes     length of the header, little-endian
    header      JSON: {"<name>": {"dtype", "shape", "data_offsets"}, "__metadata__": {}}
    the rest    the tensors, little-endian, row by row, without gaps

The library of that name maps whole files into memory, and reads no BF16 and F8
into NumPy. Source: https://github.com/huggingface/safetensors, `Format`.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final

from app.coordinator.data.conversion.errors import CannotConvert
from app.shortening import quoted

#: Bytes of a header; the library's own limit.
MAX_HEADER: Final = 100_000_000
#: Bytes that are read at once: a multiple of every element's size.
BLOCK: Final = 1024 * 1024
METADATA: Final = "__metadata__"
#: Bits of an element, by dtype.
BITS: Final[Mapping[str, int]] = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32},
    **{"U64": 64, "I64": 64, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64},
    **{"F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8},
    **{"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
}
_ALIGNMENT: Final = 8


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a file: what it is, and where its bytes are behind the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class SafetensorsFile:
    """A file that was checked: every tensor lies in it, and has the size that it says."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        """Read the header of a file of `size` bytes. Raises CannotConvert."""
        self._file = file
        header, self._begin = _header(file, size)
        metadata = header.pop(METADATA, {})
        if not isinstance(metadata, dict) or not all(
            isinstance(text, str) for text in metadata.values()
        ):
            raise CannotConvert(f"its {METADATA} is not a map of texts; write it again")
        #: What else the file says.
        self.metadata: dict[str, str] = metadata
        #: In the order of their places.
        self.tensors = _tensors(header, size - self._begin)

    def blocks(self, tensor: Tensor) -> Iterator[bytes]:
        """Yield a tensor's bytes, at most BLOCK at once."""
        self._file.seek(self._begin + tensor.start)
        left = tensor.end - tensor.start
        while left:
            block = self._file.read(min(BLOCK, left))
            if not block:
                raise CannotConvert("it became shorter while it was read; try again")
            left -= len(block)
            yield block


def _header(file: IO[bytes], size: int) -> tuple[dict[str, Any], int]:
    """The header of a file, and where the tensors begin."""
    file.seek(0)
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > size - 8:
        raise CannotConvert(
            f"it is truncated, or not a safetensors file: its header ends after its {size} bytes;"
            " write it again"
        )
    if length > MAX_HEADER:
        raise CannotConvert(f"its header has {length} bytes, more than {MAX_HEADER}")
    text = file.read(length)
    if not text.startswith(b"{"):
        raise CannotConvert("it is not a safetensors file: its header is not a JSON object")
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CannotConvert(f"its header is not JSON ({error}); write it again") from None
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise CannotConvert("its header names something twice; write it again")
    return found


def _tensors(header: Mapping[str, Any], size: int) -> list[Tensor]:
    found = sorted(
        (_tensor(name, about) for name, about in header.items()),
        key=lambda tensor: (tensor.start, tensor.end),
    )
    at = 0
    for tensor in found:
        if tensor.start != at:
            raise CannotConvert(
                f"its tensor {quoted(tensor.name)} does not begin where the one before it ends;"
                " write it again"
            )
        at = tensor.end
    if at != size:
        raise CannotConvert(
            f"its tensors have {at} bytes, and the file has {size} for them; write it again"
        )
    return found


def _tensor(name: str, about: Any) -> Tensor:
    try:
        dtype, shape = about["dtype"], about["shape"]
        start, end = about["data_offsets"]
        numbers = [*shape, start, end]
    except (LookupError, TypeError, ValueError):
        numbers = [None]
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise CannotConvert(
            f"its entry for the tensor {quoted(name)} does not describe a tensor; write it again"
        )
    if dtype not in BITS:
        raise CannotConvert(
            f"its tensor {quoted(name)} has the dtype {quoted(str(dtype), 32)},"
            " which is not supported"
        )
    bits = math.prod(shape) * BITS[dtype]
    if end - start != -(-bits // 8) or bits % 8:
        raise CannotConvert(
            f"its tensor {quoted(name)} should have {bits / 8:g} bytes, and has {end - start};"
            " write it again"
        )
    return Tensor(name, dtype, tuple(shape), start, end)


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor that is to be written, and where its bytes come from."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    blocks: Iterable[bytes]


def write_safetensors(
    target: IO[bytes], sources: Iterable[Source], metadata: Mapping[str, str]
) -> None:
    """Write a file. Raises CannotConvert if it cannot hold that, OSError."""
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    # Those with the largest elements first, so that each is aligned.
    ordered = sorted(sources, key=lambda source: (-BITS[source.dtype], source.name))
    at = 0
    for source in ordered:
        if source.name == METADATA:
            raise CannotConvert(f"an array cannot be called {METADATA} in safetensors; rename it")
        size = math.prod(source.shape) * BITS[source.dtype] // 8
        header[source.name] = {
            "dtype": source.dtype,
            "shape": list(source.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > MAX_HEADER:
        raise CannotConvert(
            f"its names and texts have {len(text)} bytes, and safetensors holds {MAX_HEADER};"
            " save the texts in a file of their own"
        )
    target.write(len(text).to_bytes(8, "little"))
    target.write(text)
    for source in ordered:
        for block in source.blocks:
            target.write(block)
