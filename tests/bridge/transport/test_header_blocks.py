import pytest

from app.bridge.transport import huffman
from app.bridge.transport.header_blocks import fields_of, request_start, with_metadata

PLAIN = b"\x00\x0bgrpc-status\x010"
#: As Go writes it.
CODED = b"\x40\x88\x9a\xca\xc8\xb2\x124\xda\x8f\x81\x07"
OK = (b"grpc-status", b"0")
STATUS = (b":status", b"200")
#: `content-type: application/grpc`, by its number in the static table.
CONTENT_TYPE = b"\x0f\x10\x10application/grpc"


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        (b"", ()),
        (b"\x88", (STATUS,)),
        (b"\x88" + CONTENT_TYPE + PLAIN, (STATUS, OK)),
        (b"\x08\x03503", ((b":status", b"503"),)),
        (b"\x8d", ((b":status", b"404"),)),
        (PLAIN, (OK,)),
        (CODED, (OK,)),
        (b"\x20" + PLAIN, (OK,)),
        (b"\x10\x01a\x02bc" + PLAIN, ((b"a", b"bc"), OK)),
        (b"\x00\x01a\x7f\x80\x03" + b"b" * 511, ((b"a", b"b" * 511),)),
        (b"\x00\x01a\x7f\x80\x0f" + b"b" * 2047, ((b"a", b"b" * 2047),)),
    ],
)
def test_a_block_is_read(block: bytes, fields: object) -> None:
    assert fields_of(block) == fields


@pytest.mark.parametrize(
    "block",
    [
        PLAIN[:-1],
        PLAIN[:3],
        PLAIN + b"\x7f\xff\xff\xff\xff\xff",  # a number without an end
        PLAIN + b"\xbe",  # of a dynamic table, which there is not
        PLAIN + b"\x7e\x010",
        PLAIN + b"\x80",
        PLAIN + b"\x00\x01a\x7f\xf0\x0f",  # a text beyond the end
        PLAIN + b"\x00\x01a\x81\x00",  # padded with zeros
    ],
)
def test_one_that_cannot_be_read_is_none(block: bytes) -> None:
    assert fields_of(block) is None


@pytest.mark.parametrize(
    ("coded", "text"),
    [
        # RFC 7541, C.4 and C.6
        ("f1e3c2e5f23a6ba0ab90f4ff", b"www.example.com"),
        ("a8eb10649cbf", b"no-cache"),
        ("25a849e95ba97d7f", b"custom-key"),
        ("25a849e95bb8e8b4bf", b"custom-value"),
        ("aec3771a4b", b"private"),
        ("d07abe941054d444a8200595040b8166e082a62d1bff", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        ("9d29ad171863c78f0b97c8e9ae82ae43d3", b"https://www.example.com"),
        (
            "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
            b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
        ),
    ],
)
def test_texts_in_the_huffman_code(coded: str, text: bytes) -> None:
    assert huffman.decode(bytes.fromhex(coded)) == text


@pytest.mark.parametrize(
    ("byte", "bits", "code"),
    [
        # RFC 7541, appendix B: some of each length that is rare.
        (0x00, 13, 0x1FF8),
        (0x5C, 19, 0x7FFF0),
        (0xD0, 19, 0x7FFF2),
        (0xE2, 20, 0xFFFED),
        (0xE6, 21, 0x1FFFE8),
        (0xE9, 22, 0x3FFFEB),
        (0x01, 23, 0x7FFFD8),
        (0xEF, 23, 0x7FFFF4),
        (0xED, 24, 0xFFFFF5),
        (0xEB, 25, 0x1FFFFEF),
        (0xFF, 26, 0x3FFFFEE),
        (0xFE, 27, 0x7FFFFF0),
        (0xF9, 28, 0xFFFFFFE),
        (0x16, 30, 0x3FFFFFFE),
    ],
)
def test_rare_bytes_in_the_huffman_code(byte: int, bits: int, code: int) -> None:
    padding = -bits % 8
    coded = (code << padding | (1 << padding) - 1).to_bytes((bits + padding) // 8, "big")
    assert huffman.decode(coded) == bytes((byte,))


def test_what_is_longer_than_a_byte_counts_is_written_with_its_length() -> None:
    """RFC 7541, 5.1: 127 and the rest, seven bits a byte."""
    start = request_start("/a/B", "host:1", 1.5)
    block = with_metadata(start, [("x-a", "v" * 126), ("x-b", "w" * 127), ("x-c", "z" * 400)])
    assert block == (
        start
        + b"\x10\x03x-a\x7e" + b"v" * 126
        + b"\x10\x03x-b\x7f\x00" + b"w" * 127
        + b"\x10\x03x-c\x7f\x91\x02" + b"z" * 400
    )  # fmt: skip


def test_the_deadline_is_in_whole_milliseconds_and_at_least_one() -> None:
    assert request_start("/a/B", "h:1", 1.5).endswith(b"\x0cgrpc-timeout\x051500m")
    assert request_start("/a/B", "h:1", 0.0001).endswith(b"\x0cgrpc-timeout\x021m")
    assert request_start("/a/B", "h:1", 1e9).endswith(b"\x0cgrpc-timeout\x0999999999m")
