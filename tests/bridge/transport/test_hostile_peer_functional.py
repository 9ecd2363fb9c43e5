"""Whatever a peer does, a read over a connection of its own ends as one of gRPC does."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from structlog.testing import capture_logs

from app import errors
from app.bridge.channel import open_channel
from app.bridge.client import CoordinatorClient
from app.bridge.settings import UpstreamSettings
from app.bridge.transport import frames
from app.bridge.transport.frames import Flag, Kind, Setting
from app.caller import Caller
from app.errors import ApiError
from generated.mindcoordinator.v1.jobs_pb2 import GetJobRequest, Job
from tests.bridge.conftest import API_SECRET, PATIENCE
from tests.bridge.transport.raw_peer import (
    HEAD,
    OK,
    Connection,
    RawPeer,
    Script,
    data,
    good_answer,
    headers,
    message,
)

#: Seconds for a read that the peer leaves unanswered.
HASTY = 1.0


def job_asked_for(connection: Connection, stream: int) -> bytes:
    """The answer's message: the job that the request names."""
    asked = GetJobRequest.FromString(connection.requests[stream][5:])
    return Job(job_id=asked.job_id).SerializeToString()


def answers(connection: Connection, stream: int) -> None:
    connection.send(good_answer(stream, job_asked_for(connection, stream)))


def sends(*what: Callable[[int], bytes]) -> Script:
    """Have the peer send this, made of the number of the request's stream."""

    def script(connection: Connection, stream: int) -> None:
        connection.send(*(each(stream) for each in what))

    return script


def closes_after(*what: Callable[[int], bytes]) -> Script:
    def script(connection: Connection, stream: int) -> None:
        sends(*what)(connection, stream)
        connection.close()

    return script


def answers_after(*what: Callable[[int], bytes]) -> Script:
    def script(connection: Connection, stream: int) -> None:
        sends(*what)(connection, stream)
        answers(connection, stream)

    return script


def field(name: bytes, value: bytes) -> bytes:
    """A header field in plain: RFC 7541, 6.2.2."""
    return b"\x00" + length_of(name) + name + length_of(value) + value


def length_of(text: bytes) -> bytes:
    """RFC 7541, 5.1, of up to 2 MiB."""
    if len(text) < 127:
        return bytes((len(text),))
    rest = len(text) - 127
    return bytes((127, rest & 127 | 128, rest >> 7 & 127 | 128, rest >> 14))


def ends(block: bytes) -> Callable[[int], bytes]:
    """Trailers, in as many frames as they need."""

    def write(stream: int) -> bytes:
        first, *rest = (block[at : at + 16_384] for at in range(0, len(block), 16_384))
        out = frames.frame(Kind.HEADERS, Flag.END_STREAM | (0 if rest else 4), stream, first)
        for each in rest[:-1]:
            out += frames.frame(Kind.CONTINUATION, 0, stream, each)
        return out + (frames.frame(Kind.CONTINUATION, 4, stream, rest[-1]) if rest else b"")

    return write


def begins(stream: int) -> bytes:
    return headers(stream, HEAD + field(b"content-type", b"application/grpc"))


def status(value: bytes, text: bytes | None = None) -> bytes:
    return field(b"grpc-status", value) + (b"" if text is None else field(b"grpc-message", text))


def goes_away(last: int, code: int = 0) -> bytes:
    return frames.frame(Kind.GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big"))


def resets(code: int) -> Callable[[int], bytes]:
    return lambda stream: frames.reset(stream, code)


def of_job(stream: int) -> bytes:
    """DATA of an answer that is well but for what surrounds it."""
    return data(stream, message(Job(job_id="j").SerializeToString()))


JOB = message(Job(job_id="j").SerializeToString())
HTML = b"<html>bad gateway</html>"

#: What a peer does with a read of job `j`.
SCRIPTS: dict[str, Script] = {
    **{f"reset-{code}": sends(resets(code)) for code in (*range(14), 99)},
    "reset-after-data": sends(begins, of_job, resets(2)),
    "goaway-all-taken-then-answers": answers_after(lambda s: goes_away(2**31 - 1)),
    "no-status": sends(begins, of_job, ends(field(b"x", b"y"))),
    "no-trailers": sends(begins, lambda s: data(s, JOB, Flag.END_STREAM)),
    "no-message": sends(begins, ends(status(b"0"))),
    "trailers-only-ok": sends(ends(HEAD + status(b"0"))),
    "trailers-only-not-found": sends(ends(HEAD + status(b"5", b"gone"))),
    **{
        f"status-{value.decode() or 'empty'}": sends(begins, of_job, ends(status(value)))
        for value in (b"99", b"abc", b"", b"-1", b"05", b"16", b"1", b"14")
    },
    "status-twice": sends(begins, of_job, ends(status(b"5") + status(b"0"))),
    **{
        f"text-{number}": sends(ends(HEAD + status(b"5", text)))
        for number, text in enumerate(
            (b"", b"%", b"%zz %4", b"%e4%ff", "ä".encode(), b"100%25", b"%0a", b"a" * 5000)
        )
    },
    "text-of-60000": sends(ends(HEAD + status(b"5", b"a" * 60_000))),
    "details-that-are-not-base64": sends(
        ends(HEAD + status(b"9", b"no") + field(b"grpc-status-details-bin", b"?!"))
    ),
    "message-too-short": sends(begins, lambda s: data(s, JOB[:-1]), ends(OK)),
    "message-that-lies": sends(begins, lambda s: data(s, b"\0\xff\xff\xff\xff"), ends(OK)),
    "message-compressed": sends(begins, lambda s: data(s, b"\1" + JOB[1:]), ends(OK)),
    "message-with-flag-2": sends(begins, lambda s: data(s, b"\2" + JOB[1:]), ends(OK)),
    "message-that-is-none": sends(begins, lambda s: data(s, message(b"\xff")), ends(OK)),
    "bad-gateway": sends(
        lambda s: headers(s, b"\x08\x03502" + field(b"content-type", b"text/html")),
        lambda s: data(s, HTML, Flag.END_STREAM),
    ),
    "html": sends(
        lambda s: headers(s, HEAD + field(b"content-type", b"text/html")),
        lambda s: data(s, HTML, Flag.END_STREAM),
    ),
    "wrong-content-type": sends(
        lambda s: headers(s, HEAD + field(b"content-type", b"text/html")), of_job, ends(OK)
    ),
    "answers-others-first": answers_after(
        lambda s: b"".join(good_answer(s - 2 * n, b"late") for n in range(1, s // 2 + 1))
    ),
    "data-before-headers": sends(of_job, begins, ends(OK)),
    "pings-and-settings": answers_after(
        lambda s: frames.frame(Kind.PING, 0, 0, bytes(8)) * 50 + frames.settings({}) * 50
    ),
    "settings-in-the-midst": answers_after(
        lambda s: (
            frames.settings({Setting.INITIAL_WINDOW_SIZE: 1000, Setting.MAX_FRAME_SIZE: 20_000})
            + frames.settings({Setting.HEADER_TABLE_SIZE: 0})
            + frames.settings({Setting.HEADER_TABLE_SIZE: 4096})
        )
    ),
    "empty-frames": sends(begins, lambda s: data(s, b"") * 100, of_job, ends(OK)),
    "well": answers,
}
#: Those for which gRPC gives up the connection, too: what it says of a read then depends on
#: what it has noticed first.
BROKEN: dict[str, Script] = {
    "goaway-none-taken": closes_after(lambda s: goes_away(0)),
    "goaway-enhance-your-calm": closes_after(lambda s: goes_away(0, 11)),
    "goaway-taken-then-lost": closes_after(lambda s: goes_away(s)),
    "lost": closes_after(),
    "lost-after-headers": closes_after(begins),
    "lost-after-data": closes_after(begins, of_job),
    "http-1": closes_after(lambda s: b"HTTP/1.1 502 Bad Gateway\r\n\r\n"),
    "frame-too-long": sends(lambda s: b"\xff\xff\xff" + bytes(6)),
    "broken-header-block": sends(lambda s: headers(s, b"\xff\xff\xff\xff\xff\xff\xff", end=True)),
    "index-of-no-table": sends(lambda s: headers(s, b"\xfe", end=True)),
    "window-widened-by-nothing": sends(lambda s: frames.window_update(0, 0)),
    "window-setting-too-wide": sends(
        lambda s: frames.settings({Setting.INITIAL_WINDOW_SIZE: 2**31})
    ),
    "headers-of-10-mb": sends(
        lambda s: (
            frames.frame(Kind.HEADERS, 0, s, HEAD)
            + frames.frame(Kind.CONTINUATION, 0, s, field(b"x", b"y" * 16_000)) * 650
            + frames.frame(Kind.CONTINUATION, Flag.END_HEADERS, s, b"")
        )
    ),
    "text-of-1000000": sends(ends(HEAD + status(b"5", b"a" * 1_000_000))),
    "padding-too-long": sends(begins, lambda s: data(s, b"\xff" + JOB, Flag.PADDED)),
    "padded": sends(
        begins,
        lambda s: data(s, b"\x03" + JOB[:4] + bytes(3), Flag.PADDED),
        lambda s: data(s, b"\x00" + JOB[4:], Flag.PADDED),
        ends(OK),
    ),
}
#: Those with which a peer leaves a read waiting, or that gRPC takes for silence.
SILENT: dict[str, Script] = {
    "message-too-long": sends(begins, lambda s: data(s, JOB + b"x"), ends(OK)),
    "two-messages": sends(begins, lambda s: data(s, JOB + JOB), ends(OK)),
    "window-too-wide": sends(lambda s: frames.window_update(0, 2**31 - 1)),
    "pushes": sends(lambda s: frames.frame(Kind.PUSH_PROMISE, 4, s, bytes(4))),
    "silence": sends(),
    "silence-after-headers": sends(begins),
    "silence-in-a-message": sends(begins, lambda s: data(s, JOB[:7])),
    "answer-to-another": sends(lambda s: good_answer(s - 2, JOB)),
}


#: What a read or a write becomes whose connection is lost.
LOST = {errors.COORDINATOR_UNAVAILABLE, errors.COORDINATOR_ERROR}
#: What differs between two runs of gRPC itself.
_CHANGING = re.compile(r"stream: \d+|Stream removed \(|\)")


@dataclass(frozen=True)
class Outcome:
    """How a read ended: what it returned or raised, and what was logged of it."""

    answer: Any
    logged: list[tuple[str, str, str]]


async def outcome_of(client: CoordinatorClient, caller: Caller) -> Outcome:
    answer: Any
    with capture_logs() as logged:
        try:
            answer = await client.get_job(caller, "j")
        except ApiError as error:
            answer = (error.kind, error.message, error.retry_after)
    said = [
        (each["log_level"], each["event"], _CHANGING.sub("", each.get("detail", "")))
        for each in logged
    ]
    return Outcome(answer, said)


@asynccontextmanager
async def client_of(
    peer: RawPeer, *, direct: bool, **given: Any
) -> AsyncIterator[Callable[..., CoordinatorClient]]:
    """Makes clients that share a channel; they differ in their timeout."""
    usual = {"reconnect_min": 0.1, "reconnect_max": 0.1, "keepalive_time": 5 * PATIENCE}
    usual |= {"read_attempts": 1, "max_message_bytes": 64 * 1024, "direct_reads": int(direct)}

    def settings(timeout: float) -> UpstreamSettings:
        return UpstreamSettings(
            address=peer.address, api_secret=API_SECRET, unary_timeout=timeout, **{**usual, **given}
        )

    async with open_channel(settings(PATIENCE)) as channel:
        yield lambda timeout=PATIENCE: CoordinatorClient(
            channel=channel, settings=settings(timeout)
        )


def read_directly(peer: RawPeer) -> int:
    return sum(len(each.requests) for each in peer.connections if each.direct)


async def reads_well(client: CoordinatorClient, caller: Caller) -> None:
    """Read until it succeeds: calls of gRPC fail for a moment after a connection was lost."""
    while True:
        try:
            job = await client.get_job(caller, "next")
        except ApiError:
            await asyncio.sleep(0.02)
        else:
            assert job["job_id"] == "next"
            return


async def reads_directly(client: CoordinatorClient, caller: Caller, peer: RawPeer) -> None:
    before = read_directly(peer)
    while read_directly(peer) == before:
        await reads_well(client, caller)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", [*SCRIPTS, *SILENT, *BROKEN])
async def test_a_read_ends_as_grpc_ends_it_and_the_next_one_is_well(
    name: str, caller: Caller
) -> None:
    script = {**SCRIPTS, **SILENT, **BROKEN}[name]
    timeout = HASTY if name in SILENT else PATIENCE
    outcomes = []
    async with RawPeer(answers).running() as peer:
        for direct in (False, True):
            async with client_of(peer, direct=direct) as client:
                await all_ready(client(), caller, peer, direct)
                peer.script = script
                before = read_directly(peer)
                outcomes.append(await outcome_of(client(timeout), caller))
                assert read_directly(peer) - before == direct
                peer.script = answers
                await reads_well(client(), caller)
    by_grpc, directly = outcomes
    if name in BROKEN:
        assert {by_grpc.answer[0], directly.answer[0]} <= LOST
    else:
        assert directly == by_grpc


async def test_a_connection_that_goes_away_at_once_does_not_end_direct_reads(
    caller: Caller,
) -> None:
    async with RawPeer(answers).running() as peer:
        peer.begin = goes_away(0)
        async with client_of(peer, direct=True) as client:
            while not any(each.direct for each in peer.connections):
                await reads_well(client(), caller)
            peer.begin = b""
            await reads_directly(client(), caller, peer)


async def all_ready(client: CoordinatorClient, caller: Caller, peer: RawPeer, direct: bool) -> None:
    await reads_well(client, caller)
    if direct:
        await reads_directly(client, caller, peer)


BOTH_WAYS = pytest.mark.parametrize("direct", [False, True], ids=["grpc", "direct"])


@BOTH_WAYS
async def test_a_read_whose_client_has_left_is_reset_and_its_answer_goes_to_nobody(
    direct: bool, caller: Caller
) -> None:
    asked = asyncio.Queue[tuple[Connection, int]]()
    async with RawPeer(answers).running() as peer, client_of(peer, direct=direct) as client:
        await all_ready(client(), caller, peer, direct)
        peer.script = lambda connection, stream: asked.put_nowait((connection, stream))
        reading = asyncio.create_task(client().get_job(caller, "j"), name="read")
        connection, stream = await asked.get()
        assert connection.direct == direct
        reading.cancel()
        await asyncio.wait([reading])
        await connection.reset.wait()
        assert connection.resets == {stream: (8).to_bytes(4, "big")}
        answers(connection, stream)
        peer.script = answers
        await reads_well(client(), caller)


@BOTH_WAYS
async def test_a_read_that_is_late_is_reset(direct: bool, caller: Caller) -> None:
    async with RawPeer(answers).running() as peer, client_of(peer, direct=direct) as client:
        await all_ready(client(), caller, peer, direct)
        peer.script = sends()
        [connection] = [each for each in peer.connections if each.direct == direct]
        with pytest.raises(ApiError) as failed:
            await client(HASTY).get_job(caller, "j")
        assert failed.value.kind is errors.COORDINATOR_TIMEOUT
        await connection.reset.wait()


@BOTH_WAYS
async def test_no_more_reads_are_under_way_than_the_peer_allows(
    direct: bool, caller: Caller
) -> None:
    waiting = list[tuple[Connection, int]]()
    most = 0

    def answers_later(connection: Connection, stream: int) -> None:
        nonlocal most
        waiting.append((connection, stream))
        most = max(most, sum(each is connection for each, _ in waiting))
        asyncio.get_running_loop().call_later(0.01, answers_first)

    def answers_first() -> None:
        answers(*waiting.pop(0))

    async with RawPeer(answers).running() as peer, client_of(peer, direct=direct) as client:
        peer.demands = {Setting.MAX_CONCURRENT_STREAMS: 2}
        await all_ready(client(), caller, peer, direct)
        peer.script = answers_later
        names = [f"job-{n}" for n in range(20)]
        jobs = await asyncio.gather(*(client().get_job(caller, name) for name in names))
    assert [each["job_id"] for each in jobs] == names
    assert 0 < most <= 2


@BOTH_WAYS
async def test_a_write_is_made_once_whatever_becomes_of_it(direct: bool, caller: Caller) -> None:
    async with RawPeer(answers).running() as peer, client_of(peer, direct=direct) as client:
        await all_ready(client(), caller, peer, direct)
        before = sum(len(each.requests) for each in peer.connections)
        peer.script = closes_after(begins)
        with pytest.raises(ApiError) as failed:
            await client().cancel_job(caller, "j")
        assert failed.value.kind in LOST
        assert sum(len(each.requests) for each in peer.connections) == before + 1
