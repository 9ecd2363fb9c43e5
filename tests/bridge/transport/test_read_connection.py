import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import grpc
import pytest

from app.bridge.settings import UpstreamSettings
from app.bridge.transport import frames
from app.bridge.transport.frames import LAST_STREAM, Flag, Frame, FrameReader, Kind, Setting
from app.bridge.transport.read_connection import MAX_HEAD, MAX_REQUEST, ReadConnection

HEAD = b"\x88"
OK = b"\x00\x0bgrpc-status\x010"
NOT_FOUND = b"\x00\x0bgrpc-status\x015\x00\x0cgrpc-message\x04gone"
ACK = frames.frame(Kind.SETTINGS, Flag.ACK, 0, b"")
END_HEADERS, END = Flag.END_HEADERS, Flag.END_HEADERS | Flag.END_STREAM


def message(data: bytes, *, compressed: int = 0) -> bytes:
    return bytes((compressed,)) + len(data).to_bytes(4, "big") + data


def data(stream: int, content: bytes, flags: int = 0) -> bytes:
    return frames.frame(Kind.DATA, flags, stream, content)


def headers(stream: int, block: bytes, flags: int = END_HEADERS) -> bytes:
    return frames.frame(Kind.HEADERS, flags, stream, block)


def good_answer(stream: int, content: bytes) -> bytes:
    return headers(stream, HEAD) + data(stream, message(content)) + headers(stream, OK, END)


class Peer(asyncio.Transport):
    """The other side: what was sent to it, and what it sends."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.ended: list[ReadConnection] = []
        self.lost: list[ReadConnection] = []
        self.closed = False
        #: Bytes that it has not taken yet.
        self.waiting = 0
        self._sent = FrameReader()
        self.frames: list[Frame] = []
        self.connection = ReadConnection(
            # Nothing here is idle for too long unless a test wants it.
            settings=UpstreamSettings(api_secret="secret", **{"keepalive_time": 300.0, **settings}),
            on_end=self.ended.append,
            on_lost=self.lost.append,
        )
        self.connection.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.frames += self._sent.feed(bytes(data).removeprefix(frames.PREFACE))

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.connection.connection_lost(None)

    def abort(self) -> None:
        self.close()

    def sends(self, *what: bytes) -> None:
        self.connection.data_received(b"".join(what))

    def is_ready(self, demands: dict[int, int] | None = None) -> None:
        self.sends(frames.settings(demands or {}), ACK)
        assert self.connection.ready.done()
        self.frames.clear()

    async def read(self, content: bytes = b"q", *, patience: float = 60.0) -> "asyncio.Task[Any]":
        """Begin a read; its task returns the message or the code of the answer, or None."""
        deadline = asyncio.get_running_loop().time() + patience

        async def read() -> bytes | grpc.StatusCode | None:
            answer = await self.connection.read(b"head", content, deadline=deadline)
            if answer is None:
                return None
            return answer.message if answer.code is grpc.StatusCode.OK else answer.code

        reading = asyncio.create_task(read(), name="read")
        await asyncio.sleep(0)
        return reading

    def sent(self, kind: int) -> list[Frame]:
        return [each for each in self.frames if each.kind == kind]


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    peer.is_ready()
    yield peer
    peer.close()


async def test_it_is_ready_once_both_sides_have_agreed() -> None:
    peer = Peer()
    demanded = dict(frames.settings_of(peer.frames[0]))
    assert demanded[Setting.HEADER_TABLE_SIZE] == 0
    peer.sends(frames.settings({}))
    assert not peer.connection.ready.done()
    assert peer.frames[-1] == Frame(Kind.SETTINGS, Flag.ACK, 0, b"")
    peer.sends(ACK)
    assert peer.connection.ready.done()
    peer.close()


async def test_a_request_is_written_and_its_answer_returned(peer: Peer) -> None:
    reading = await peer.read(b"question")
    assert peer.frames == [
        Frame(Kind.HEADERS, Flag.END_HEADERS, 1, b"head"),
        Frame(Kind.DATA, Flag.END_STREAM, 1, message(b"question")),
    ]
    peer.sends(good_answer(1, b"answer"))
    assert await reading == b"answer"


async def test_reads_have_their_own_answers_in_any_order(peer: Peer) -> None:
    first, second = await peer.read(), await peer.read()
    peer.sends(good_answer(3, b"second"))
    assert await second == b"second"
    assert not first.done()
    peer.sends(good_answer(1, b"first"))
    assert await first == b"first"


async def test_an_answer_may_come_byte_by_byte(peer: Peer) -> None:
    reading = await peer.read()
    for byte in good_answer(1, b"answer"):
        peer.sends(bytes((byte,)))
    assert await reading == b"answer"


async def test_an_answers_headers_may_be_padded_and_all_of_it_cut(peer: Peer) -> None:
    reading = await peer.read()
    cut = message(b"answer")
    peer.sends(
        headers(1, b"\x02" + bytes(5) + HEAD + bytes(2), END_HEADERS | Flag.PADDED | Flag.PRIORITY),
        data(1, cut[:3]),
        data(1, cut[3:]),
        headers(1, OK[:4], Flag.END_STREAM),
        frames.frame(Kind.CONTINUATION, 0, 1, OK[4:7]),
        frames.frame(Kind.CONTINUATION, Flag.END_HEADERS, 1, OK[7:]),
    )
    assert await reading == b"answer"


@pytest.mark.parametrize(
    "answer",
    [
        headers(1, OK, END),
        headers(1, HEAD) + headers(1, OK, END),
        headers(1, HEAD) + headers(1, OK[:-1], END),
        headers(1, HEAD) + data(1, message(b"answer"), Flag.END_STREAM),
        headers(1, HEAD) + data(1, message(b"answer", compressed=1)) + headers(1, OK, END),
        headers(1, HEAD) + data(1, message(b"answer")[:-1]) + headers(1, OK, END),
        headers(1, HEAD) + data(1, message(b"answer") + b"x") + headers(1, OK, END),
        headers(1, HEAD) + data(1, message(b"a") + message(b"b")) + headers(1, OK, END),
        headers(1, b"\x8d") + data(1, message(b"answer")) + headers(1, OK, END),
        data(1, message(b"answer")) + headers(1, OK, END),
        headers(1, HEAD) + headers(1, HEAD),
        headers(1, HEAD) + data(1, b"\0" + message(b"answer"), Flag.PADDED) + headers(1, OK, END),
        headers(1, HEAD) + frames.reset(1, 2),
        frames.frame(Kind.GOAWAY, 0, 0, bytes(8)),
    ],
)
async def test_what_is_no_answer_is_none(peer: Peer, answer: bytes) -> None:
    reading = await peer.read()
    peer.sends(answer)
    assert await reading is None


@pytest.mark.parametrize(
    "answer",
    [
        headers(1, HEAD + NOT_FOUND, END),
        headers(1, HEAD) + headers(1, NOT_FOUND, END),
        headers(1, HEAD) + data(1, message(b"answer")) + headers(1, NOT_FOUND, END),
    ],
)
async def test_an_answer_may_be_another_status(peer: Peer, answer: bytes) -> None:
    reading = await peer.read()
    peer.sends(answer)
    assert await reading is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    "nonsense",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff" * 9,
        frames.frame(Kind.CONTINUATION, Flag.END_HEADERS, 1, OK),
        headers(1, HEAD, 0) + data(1, message(b"answer")),
        headers(1, HEAD, 0) + frames.frame(Kind.CONTINUATION, Flag.END_HEADERS, 3, OK),
        headers(1, HEAD, 0) + frames.frame(Kind.CONTINUATION, 0, 1, bytes(16_000)) * 5,
        headers(1, b"\x09" + HEAD, END_HEADERS | Flag.PADDED),
        headers(1, b"", END_HEADERS | Flag.PADDED),
        frames.frame(Kind.WINDOW_UPDATE, 0, 0, b"\x00"),
        frames.frame(Kind.GOAWAY, 0, 0, b""),
        frames.frame(Kind.SETTINGS, 0, 0, b"\x00"),
        frames.frame(Kind.PUSH_PROMISE, 0, 1, bytes(8)),
        frames.frame(Kind.PING, 0, 0, bytes(16_000)),
        frames.frame(Kind.PING, 0, 1, bytes(8)),
        frames.frame(Kind.GOAWAY, 0, 1, bytes(8)),
        frames.frame(Kind.SETTINGS, 0, 1, b""),
        frames.frame(Kind.SETTINGS, Flag.ACK, 0, bytes(6)),
        frames.settings({Setting.INITIAL_WINDOW_SIZE: 2**31}),
        frames.settings({Setting.MAX_FRAME_SIZE: 16_383}),
        frames.settings({Setting.MAX_FRAME_SIZE: 2**24}),
        frames.window_update(0, 0),
        frames.window_update(1, 0),
        frames.window_update(0, 2**31 - 1),
        frames.frame(Kind.RST_STREAM, 0, 1, bytes(3)),
        frames.frame(Kind.RST_STREAM, 0, 0, bytes(4)),
        # Of streams that nobody began.
        data(0, b"x"),
        headers(0, HEAD),
        data(2, b"x"),
        headers(2, HEAD),
        data(3, b"x"),
        headers(3, HEAD),
        frames.reset(3, 2),
        headers(1, HEAD, 0) + frames.frame(Kind.CONTINUATION, 0, 1, b""),
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_left(peer: Peer, nonsense: bytes) -> None:
    reading = await peer.read()
    peer.sends(nonsense)
    assert await reading is None
    assert peer.closed
    assert peer.ended == peer.lost == [peer.connection]


async def test_a_connection_that_is_lost_leaves_no_read_waiting(peer: Peer) -> None:
    reading = await peer.read()
    peer.close()
    assert await reading is None
    assert not peer.connection.has_room(1, 1)


async def test_an_answer_that_is_cut_anywhere_is_none() -> None:
    answer = good_answer(1, b"answer")
    for end in range(len(answer)):
        peer = Peer()
        peer.is_ready()
        reading = await peer.read()
        peer.sends(answer[:end])
        peer.close()
        assert await reading is None, end


async def test_whatever_an_answer_becomes_on_its_way_the_read_ends() -> None:
    """A frame's length may promise more: then the connection's end is the read's."""
    random = Random(50)
    for _ in range(2_000):
        answer = bytearray(good_answer(1, b"answer") + headers(1, NOT_FOUND, END))
        for _ in range(random.randint(1, 3)):
            answer[random.randrange(len(answer))] = random.randrange(256)
        peer = Peer()
        peer.is_ready()
        reading = await peer.read()
        peer.sends(bytes(answer))
        peer.close()
        told = await reading
        assert told is None or isinstance(told, bytes | grpc.StatusCode)


async def test_no_read_gets_the_answer_of_another() -> None:
    """Answers come in any order, frame by frame; some of them when nobody waits any more."""
    random = Random(50)
    for _ in range(50):
        peer = Peer()
        peer.is_ready()
        reads = {stream: await peer.read() for stream in range(1, 21, 2)}
        left = random.sample(sorted(reads), 3)
        for stream in left:
            reads[stream].cancel()
        await asyncio.wait([reads[stream] for stream in left])
        parts = {stream: _parts(stream) for stream in reads}
        while parts:
            stream = random.choice(sorted(parts))
            peer.sends(parts[stream].pop(0))
            if not parts[stream]:
                del parts[stream]
        for stream, reading in reads.items():
            if stream not in left:
                assert await reading == b"%d" % stream
        peer.close()


def _parts(stream: int) -> list[bytes]:
    """The frames of an answer that says to which stream it belongs."""
    return [headers(stream, HEAD), data(stream, message(b"%d" % stream)), headers(stream, OK, END)]


async def test_a_read_that_is_cancelled_is_reset_and_its_answer_ignored(peer: Peer) -> None:
    reading = await peer.read()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert [each.stream for each in peer.sent(Kind.RST_STREAM)] == [1]
    peer.sends(good_answer(1, b"late"))
    other = await peer.read()
    peer.sends(good_answer(3, b"answer"))
    assert await other == b"answer"


async def test_a_read_ends_at_its_deadline(peer: Peer) -> None:
    other = await peer.read()
    late = await peer.read(patience=0.05)
    assert await late is None
    assert [each.stream for each in peer.sent(Kind.RST_STREAM)] == [3]
    peer.sends(good_answer(1, b"answer"))
    assert await other == b"answer"


async def test_after_goaway_what_was_taken_is_answered_and_nothing_begins(peer: Peer) -> None:
    first, second = await peer.read(), await peer.read()
    peer.sends(frames.frame(Kind.GOAWAY, 0, 0, (1).to_bytes(4, "big") + bytes(4)))
    assert await second is None
    assert peer.ended == [peer.connection]
    assert not peer.connection.has_room(1, 1)
    assert not peer.closed
    peer.sends(good_answer(1, b"answer"))
    assert await first == b"answer"
    assert peer.closed


async def test_a_ping_is_answered(peer: Peer) -> None:
    peer.sends(frames.frame(Kind.PING, 0, 0, b"12345678"))
    assert peer.frames == [Frame(Kind.PING, Flag.ACK, 0, b"12345678")]


@pytest.mark.parametrize(
    "demand",
    [frames.frame(Kind.PING, 0, 0, bytes(8)), frames.settings({})],
    ids=["ping", "settings"],
)
async def test_a_peer_that_has_us_answer_and_takes_nothing_is_left(
    peer: Peer, demand: bytes
) -> None:
    reading = await peer.read()
    peer.waiting = 64 * 1024
    peer.sends(demand)
    assert not peer.closed
    peer.waiting = 2 * 1024 * 1024
    peer.frames.clear()
    peer.sends(demand, demand)
    assert await reading is None
    assert peer.closed
    assert not peer.frames


async def test_what_comes_while_it_closes_is_not_answered(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "is_closing", lambda: True)
    peer.sends(frames.frame(Kind.PING, 0, 0, bytes(8)))
    assert not peer.frames


async def test_an_error_that_nobody_waits_for_is_not_reported_as_lost() -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    peer = Peer()
    peer.close()
    del peer
    gc.collect()
    assert not reported


async def test_empty_frames_of_an_answer_take_no_memory(peer: Peer) -> None:
    reading = await peer.read()
    empty = data(1, b"") * 20_000
    peer.sends(headers(1, HEAD))
    tracemalloc.start()
    try:
        peer.sends(empty)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 50_000
    peer.sends(data(1, message(b"answer")), headers(1, OK, END))
    assert await reading == b"answer"


async def test_one_that_retires_answers_what_was_begun(peer: Peer) -> None:
    reading = await peer.read()
    peer.connection.retire()
    peer.connection.retire()
    assert peer.ended == [peer.connection]
    assert not peer.connection.has_room(1, 1)
    assert not peer.closed
    peer.sends(good_answer(1, b"answer"))
    assert await reading == b"answer"
    assert peer.closed


async def test_what_is_unknown_is_passed_over(peer: Peer) -> None:
    reading = await peer.read()
    peer.sends(frames.frame(99, 0, 1, b"?"), frames.frame(99, 0, 0, b""))
    peer.sends(frames.window_update(1, 7), frames.settings({99: 1, Setting.HEADER_TABLE_SIZE: 0}))
    peer.sends(good_answer(1, b"answer"))
    assert await reading == b"answer"


async def test_the_peer_may_send_more_once_it_was_taken() -> None:
    peer = Peer(max_message_bytes=64 * 1024)
    peer.is_ready()
    for stream in (1, 3, 5):
        reading = await peer.read()
        pieces = [
            data(stream, message(bytes(30_000))[at : at + 10_000])
            for at in range(0, 30_005, 10_000)
        ]
        peer.sends(headers(stream, HEAD), *pieces, headers(stream, OK, END))
        assert await reading == bytes(30_000)
    updates = [frames.number_of(each) for each in peer.sent(Kind.WINDOW_UPDATE)]
    assert sum(updates) > 30_000
    assert {each.stream for each in peer.sent(Kind.WINDOW_UPDATE)} == {0}
    peer.close()


async def test_an_answer_longer_than_a_message_may_be_is_broken_off() -> None:
    peer = Peer(max_message_bytes=64 * 1024)
    peer.is_ready()
    reading = await peer.read()
    peer.sends(headers(1, HEAD), *(data(1, bytes(16_000)) for _ in range(5)))
    assert await reading is None
    assert [each.stream for each in peer.sent(Kind.RST_STREAM)] == [1]
    peer.close()


@pytest.mark.parametrize(
    "begun",
    [
        b"\0" + (64 * 1024 + 1).to_bytes(4, "big"),
        b"\0\xff\xff\xff\xff",
        message(b"one") + b"\0",
        message(b"one") * 2,
    ],
    ids=["too-long", "longest", "more", "two"],
)
async def test_an_answer_that_cannot_be_one_is_broken_off_at_once(begun: bytes) -> None:
    peer = Peer(max_message_bytes=64 * 1024)
    peer.is_ready()
    reading = await peer.read()
    peer.sends(headers(1, HEAD), data(1, begun))
    assert await reading is None
    assert [each.stream for each in peer.sent(Kind.RST_STREAM)] == [1]
    assert not peer.closed
    peer.close()


async def test_there_is_room_for_what_the_peer_takes() -> None:
    peer = Peer()
    peer.is_ready({Setting.MAX_CONCURRENT_STREAMS: 1, Setting.INITIAL_WINDOW_SIZE: 1000})
    connection = peer.connection
    assert connection.has_room(MAX_HEAD, 995)
    assert not connection.has_room(MAX_HEAD + 1, 995)
    assert not connection.has_room(1, 996)
    reading = await peer.read()
    assert not connection.has_room(1, 1)
    peer.sends(good_answer(1, b"answer"))
    await reading
    assert connection.has_room(1, 1)
    connection.pause_writing()
    assert not connection.has_room(1, 1)
    connection.resume_writing()
    assert connection.has_room(1, 1)
    peer.close()


async def test_the_window_of_all_requests_is_heeded(peer: Peer) -> None:
    reads = [await peer.read(bytes(MAX_REQUEST)) for _ in range(3)]
    assert not peer.connection.has_room(1, MAX_REQUEST)
    peer.sends(frames.window_update(0, 3 * (MAX_REQUEST + 5)))
    assert peer.connection.has_room(1, MAX_REQUEST)
    peer.sends(*(good_answer(stream, b"a") for stream in (1, 3, 5)))
    assert [await each for each in reads] == [b"a"] * 3


async def test_the_last_number_of_a_stream_ends_the_connection(peer: Peer) -> None:
    peer.connection._next_stream = LAST_STREAM
    reading = await peer.read()
    assert peer.ended == [peer.connection]
    assert not peer.closed
    peer.sends(good_answer(LAST_STREAM, b"answer"))
    assert await reading == b"answer"
    assert peer.closed


async def test_a_silent_peer_is_pinged_then_left() -> None:
    peer = Peer(keepalive_time=0.5, keepalive_timeout=0.5)
    peer.is_ready()
    reading = await peer.read()
    assert await reading is None
    assert [each.content for each in peer.sent(Kind.PING)] == [bytes(8)]
    assert peer.closed


async def test_a_silent_peer_is_found_by_reads_that_come_one_after_the_other() -> None:
    peer = Peer(keepalive_time=0.5, keepalive_timeout=0.5)
    peer.is_ready()
    async with asyncio.timeout(60):
        # By a ping; or, on a machine that stood still just between two reads, as one that nobody
        # uses.
        while not peer.closed:
            assert await (await peer.read(patience=0.1)) is None


async def test_a_connection_that_nobody_uses_is_closed_without_a_ping() -> None:
    lost = asyncio.Event()
    peer = Peer(keepalive_time=0.5)
    peer.connection._on_lost = lambda _: lost.set()
    peer.is_ready()
    await lost.wait()
    assert not peer.sent(Kind.PING)
