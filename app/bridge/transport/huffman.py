"""The Huffman code of HPACK (RFC 7541, 5.2 and appendix B), as far as a client reads it."""

from collections.abc import Iterator, Mapping
from typing import Final

#: The bytes that have codes of so many bits, in the order of their codes. The code is canonical:
#: that is all of it, but for the end of a string (30 ones), which is never written.
_BYTES: Final[Mapping[int, bytes]] = {
    5: b"012aceiost",
    6: b" %-./3456789=A_bdfghlmnpru",
    7: b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: b"&*,;XZ",
    10: b'!"()?',
    11: b"'+|",
    12: b"#>",
    13: b"\0$@[]~",
    14: b"^}",
    15: b"<`{",
    19: bytes.fromhex("5cc3d0"),
    20: bytes.fromhex("808283a2b8c2e0e2"),
    21: bytes.fromhex("99a1a7acb0b1b3d1d8d9e3e5e6"),
    22: bytes.fromhex("8184858688929a9ca0a3a4a9aaadb2b5b9babbbdbec4c6e4e8e9"),
    23: bytes.fromhex("0187898a8b8c8d8f93959697989b9d9ea5a6a8aeafb4b6b7bcbfc5e7ef"),
    24: bytes.fromhex("098e9091949fabced7e1eced"),
    25: bytes.fromhex("c7cfeaeb"),
    26: bytes.fromhex("c0c1c8c9cacdd2d5dadbeef0f2f3ff"),
    27: bytes.fromhex("cbccd3d4d6dddedff1f4f5f6f7f8fafbfcfdfe"),
    28: bytes.fromhex("020304050607080b0c0e0f1011121314151718191a1b1c1d1e1f7fdcf9"),
    30: bytes.fromhex("0a0d16"),
}
#: The end of a string is filled up with ones, to a whole byte.
_MOST_PADDING: Final = 7


def decode(data: bytes) -> bytes:
    """Decode a string. Raises `ValueError` if it is none."""
    out = bytearray()
    code, bits = 0, 0
    for byte in data:
        for shift in range(7, -1, -1):
            code = code << 1 | byte >> shift & 1
            bits += 1
            found = _BY_CODE.get((bits, code))
            if found is not None:
                out.append(found)
                code, bits = 0, 0
    if bits > _MOST_PADDING or code != (1 << bits) - 1:
        raise ValueError("not in the Huffman code of HPACK")
    return bytes(out)


def _codes() -> Iterator[tuple[tuple[int, int], int]]:
    """Yield each code, as its length and its value, with its byte."""
    code, before = 0, 0
    for bits, symbols in _BYTES.items():
        code <<= bits - before
        before = bits
        for symbol in symbols:
            yield (bits, code), symbol
            code += 1


_BY_CODE: Final = dict(_codes())
