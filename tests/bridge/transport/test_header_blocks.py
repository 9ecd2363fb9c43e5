import pytest
from hpack import Decoder

from app.bridge.transport.header_blocks import fields_of, request_start, with_metadata

PLAIN = b"\x00\x0bgrpc-status\x010"
#: As Go writes it.
CODED = b"\x40\x88\x9a\xca\xc8\xb2\x124\xda\x8f\x81\x07"
OK = (b"grpc-status", b"0")
STATUS = (b":status", b"200")
#: `content-type: application/grpc`, by its number in the static table.
CONTENT_TYPE = b"\x0f\x10\x10application/grpc"
GRPC = (b"content-type", b"application/grpc")


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        (b"", ()),
        (b"\x88", (STATUS,)),
        (b"\x88" + CONTENT_TYPE + PLAIN, (STATUS, GRPC, OK)),
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
        PLAIN + b"\x20",  # a table's size behind a field
        b"\x21" + PLAIN,  # of a table that was refused
        PLAIN + b"\x00\x01a\x7f\xf0\x0f",  # a text beyond the end
        PLAIN + b"\x00\x01a\x81\x00",  # padded with zeros
    ],
)
def test_one_that_cannot_be_read_is_none(block: bytes) -> None:
    assert fields_of(block) is None


def test_what_says_too_much_is_none() -> None:
    """A byte of a block may stand for a field, and each takes memory."""
    assert fields_of(b"\x88" * 1_000) is not None
    assert fields_of(b"\x88" * 10_000) is None
    assert fields_of(b"\x00\x01a\x7f\xd1\x07" + b"b" * 1_104) is not None
    assert fields_of(b"\x00\x01a\x7f\x81\xff\x03" + b"b" * 65_536) is None


def test_a_block_needs_no_table_and_says_so() -> None:
    """As a peer demands that has none, or that has one again (RFC 7541, 4.2)."""
    peer = Decoder()
    metadata = [("x-tenant-id", "acme"), ("authorization", "secret"), ("x-long", "v" * 300)]
    block = with_metadata(request_start("/a/B", "host:1", 1.5), metadata)
    for allowed in (4096, 0, 4096, 0):
        peer.max_allowed_table_size = allowed
        fields = list(peer.decode(block, raw=True))
        told = [(name.decode(), value.decode()) for name, value in fields]
        assert told[-3:] == metadata
        assert (":path", "/a/B") in told
        assert not any(each.indexable for each in fields[-3:])


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
