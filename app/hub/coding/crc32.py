"""CRC-32 (RFC 1952, 8) of bytes that follow others, from the checksums of both.

The checksum is a remainder modulo a polynomial over GF(2). Bytes that follow
multiply it by a power of x, to which theirs is added.
"""

from functools import lru_cache
from typing import Final

#: The polynomial, as all of this with the lowest power of x in the highest bit.
_POLYNOMIAL: Final = 0xEDB88320
_ONE: Final = 1 << 31
#: x to the 8th: a byte that follows.
_BYTE: Final = _ONE >> 8


def shifted(checksum: int, count: int) -> int:
    """Return what a checksum contributes once `count` bytes follow.

    The checksum of `a + b` is `shifted(crc32(a), len(b)) ^ crc32(b)`.
    """
    place = 0
    while count:
        if digit := count & 0xFF:
            checksum = _product(_power(place, digit), checksum)
        count >>= 8
        place += 1
    return checksum


@lru_cache(maxsize=8 * 256)
def _power(place: int, digit: int) -> int:
    """Return what `digit` times 256 to the power of `place` bytes multiply by."""
    power = _ONE
    for bit in range(8):
        if digit >> bit & 1:
            power = _product(_square(8 * place + bit), power)
    return power


@lru_cache(maxsize=64)
def _square(exponent: int) -> int:
    """Return what 2 to the power of `exponent` bytes multiply by."""
    if exponent == 0:
        return _BYTE
    half = _square(exponent - 1)
    return _product(half, half)


def _product(one: int, other: int) -> int:
    product = 0
    while one:
        if one & _ONE:
            product ^= other
        one = one << 1 & 0xFFFFFFFF
        other = other >> 1 ^ (_POLYNOMIAL if other & 1 else 0)
    return product
