"""gzip of streams that share pieces: each stream is whole, wherever it began."""

import gzip
import random
import zlib

import pytest

from app.hub.coding.crc32 import shifted
from app.hub.coding.gzip_stream import HEADER, WORTH, GzipStream, SharedPieces, piece


class Client:
    """Unpacks what it is sent, as it comes."""

    def __init__(self) -> None:
        self.stream = GzipStream()
        self._decoding = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self.sent = bytearray()
        self.seen = bytearray()
        self.coded = bytearray()
        self.receive(HEADER)

    def receive(self, coded: bytes) -> None:
        self.coded += coded
        self.seen += self._decoding.decompress(coded)

    def alone(self, data: bytes) -> None:
        self.sent += data
        self.receive(self.stream.compress(data))
        assert self.seen == self.sent

    def end(self) -> None:
        assert not self._decoding.eof
        self.receive(self.stream.flush())
        assert self._decoding.eof
        assert gzip.decompress(self.coded) == self.sent == self.seen


def share(shared: SharedPieces, clients: list[Client], data: bytes) -> None:
    coded = shared.take(data)
    for each in clients:
        each.sent += data
        each.receive(coded)
        # At once, before anything else comes.
        assert each.seen == each.sent


def some_bytes(randomly: random.Random) -> bytes:
    size = randomly.choice([1, 20, WORTH - 1, WORTH, 3 * WORTH, 100_000])
    line = b"id: e1:%d\nevent: log\ndata: {}\n\n" % randomly.randrange(1000)
    return randomly.randbytes(size) if randomly.random() < 0.2 else (line * size)[:size]


@pytest.mark.parametrize("seed", range(5))
def test_clients_that_come_and_go_unpack_all_that_they_are_sent(seed: int) -> None:
    randomly = random.Random(seed)
    groups = [SharedPieces(), SharedPieces()]
    clients: list[Client] = []
    for _ in range(150):
        what = randomly.randrange(6)
        followers = [
            [each for each in clients if each.stream.followed is group] for group in groups
        ]
        if what == 0 or not clients:
            clients.append(Client())
        elif what == 1:
            randomly.choice(clients).stream.follow(randomly.choice(groups))
        elif what == 2:
            randomly.choice(clients).stream.part()
        elif what == 3:
            # It may do so while it follows, as when a keepalive is its own.
            randomly.choice(clients).alone(some_bytes(randomly))
        else:
            number = randomly.randrange(2)
            share(groups[number], followers[number], some_bytes(randomly))
    assert len(clients) > 5
    for each in clients:
        each.end()


def test_a_piece_is_never_much_more_than_what_it_says() -> None:
    for size in (1, WORTH - 1, WORTH, 128 * 1024):
        assert len(piece(random.Random(1).randbytes(size))) <= size + 5 * (1 + size // 16_000) + 5
    assert piece(b"") == b""


def test_a_stream_that_breaks_off_is_not_taken_for_a_whole_one() -> None:
    client = Client()
    client.alone(b"x" * 5000)
    with pytest.raises(EOFError):
        gzip.decompress(client.coded)


def test_checksums_of_any_length_are_shifted() -> None:
    for count in (1, 255, 256, 70_000):
        data = b"first", bytes(count)
        assert shifted(zlib.crc32(data[0]), count) ^ zlib.crc32(data[1]) == zlib.crc32(
            b"".join(data)
        )
    for one, other in ((2**32, 5), (2**40 + 3, 2**33), (2**63 - 1, 2**63 - 1)):
        assert shifted(shifted(0xDEADBEEF, one), other) == shifted(0xDEADBEEF, one + other)
    assert shifted(0xDEADBEEF, 0) == 0xDEADBEEF
