"""Inflating: what is taken, what is not, and never more at once than a piece."""

import gzip
import random
import zlib

import pytest

from app.api.content_codings import BadContent, Identity, Inflater, decoder
from app.errors import UNSUPPORTED_MEDIA_TYPE, ApiError

DATA = bytes(random.Random(7).choices(b"abcdef{}[]:,", k=300_000))


def raw_deflate(data: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packing.compress(data) + packing.flush()


def undo(decode: Identity, data: bytes, *, step: int) -> bytes:
    pieces = [
        piece
        for start in range(0, len(data), step)
        for piece in decode.feed(data[start : start + step])
    ]
    decode.finish()
    assert all(0 < len(piece) <= 64 * 1024 for piece in pieces)
    return b"".join(pieces)


@pytest.mark.parametrize("step", [1, 7, 4096, 60_000])
@pytest.mark.parametrize(
    ("headers", "packed"),
    [
        ([], DATA),
        (["identity"], DATA),
        ([" "], DATA),
        (["gzip"], gzip.compress(DATA)),
        (["X-GZip"], gzip.compress(DATA)),
        (["identity, gzip"], gzip.compress(DATA)),
        (["gzip"], gzip.compress(DATA[:100]) + gzip.compress(b"") + gzip.compress(DATA[100:])),
        (["deflate"], zlib.compress(DATA)),
        (["deflate"], raw_deflate(DATA)),
    ],
)
def test_what_is_packed_is_unpacked(headers: list[str], packed: bytes, step: int) -> None:
    assert undo(decoder(headers), packed, step=step) == DATA


@pytest.mark.parametrize("more", [1, 3, 100, 257])
@pytest.mark.parametrize("pieces", [1, 2])
def test_content_whose_last_input_fills_a_piece_is_whole(pieces: int, more: int) -> None:
    # Without a wrapper no checksum follows: all input is taken before all content is out.
    data = b" " * (pieces * 64 * 1024 + more)
    assert undo(Inflater("deflate"), raw_deflate(data), step=60_000) == data


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_nothing_is_nothing(coding: str) -> None:
    assert undo(Inflater(coding), b"", step=1) == b""


@pytest.mark.parametrize(
    "headers",
    [["br"], ["zstd"], ["foo"], ["compress"], ["gzip, gzip"], ["gzip", "deflate"], ["gzip;q=1"]],
)
def test_another_coding_is_not_supported(headers: list[str]) -> None:
    with pytest.raises(ApiError) as caught:
        decoder(headers)
    assert caught.value.kind is UNSUPPORTED_MEDIA_TYPE
    assert "Content-Encoding" in caught.value.message


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", b"{}"),
        ("gzip", gzip.compress(DATA)[:-1]),
        ("gzip", gzip.compress(DATA)[:20]),
        ("gzip", gzip.compress(DATA) + b"more"),
        ("gzip", gzip.compress(b"x")[:-8] + bytes(8)),
        ("gzip", zlib.compress(DATA)),
        ("gzip", gzip.compress(b"") * 1001),
        ("deflate", zlib.compress(DATA)[:-1]),
        ("deflate", zlib.compress(DATA) + zlib.compress(DATA)),
        ("deflate", b"{}"),
    ],
)
@pytest.mark.parametrize("step", [3, 65_536])
def test_what_is_not_what_it_says(coding: str, packed: bytes, step: int) -> None:
    with pytest.raises(BadContent):
        undo(Inflater(coding), packed, step=step)


def test_a_bomb_is_unpacked_as_far_as_it_is_wanted() -> None:
    bomb = gzip.compress(bytes(100 * 1024 * 1024))
    taken = 0
    for piece in Inflater("gzip").feed(bomb):
        taken += len(piece)
        if taken > 1024 * 1024:
            break
    assert taken <= 1024 * 1024 + 64 * 1024
