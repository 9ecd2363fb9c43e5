"""A connection whose client does not read: what is sent keeps its order, the end comes last."""

import asyncio
import errno
import os
import socket

import pytest
from typing_extensions import Buffer

from app.caller import Caller
from app.hub.close_reasons import CloseReason
from app.hub.connection import ENDED, GONE, Closing, Connection, drained, event_of
from app.hub.socket_pool import SocketPool
from app.hub.upstream import Position
from tests.hub.sse import parse


class Stopped:
    """A watcher that notes that it was stopped."""

    def __init__(self) -> None:
        self.stops = 0
        self.left = False

    def pump(self) -> None:
        """Nothing more to send."""

    def stop(self) -> None:
        self.stops += 1

    def leave(self) -> None:
        self.left = True

    def final_event(self, closing: Closing) -> bytes:
        return event_of(closing, Position("e", 3), "TRAINING")


async def test_what_is_sent_to_a_full_socket_keeps_its_order_and_the_end_comes_last() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        pool, watcher = SocketPool(), Stopped()
        closed: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()
        connection = Connection(
            caller=Caller("acme", "ann"),
            chunked=False,
            pool=pool,
            watcher=watcher,
            on_closed=lambda _, reason: closed.set_result(reason),
        )
        connection.open(ours.detach())

        event = 'id: e:{}\nevent: log\ndata: "{}"\n\n'
        sent = [event.format(number, "x" * 400_000) for number in (1, 2, 3)]
        for each in sent:
            assert not connection.send(each.encode(), 0.0)
        connection.close(drained(retry_ms=7))
        assert watcher.stops == 1

        received = b""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(60):
            while data := await loop.sock_recv(theirs, 65536):
                received += data
            assert await closed is CloseReason.SHUTDOWN
        assert watcher.left
        assert [each.id for each in parse(received)] == ["e:1", "e:2", "e:3", "e:3"]
        assert parse(received)[-1].data["code"] == "SHUTTING_DOWN"
        pool.close()


async def test_a_slow_client_that_was_sent_everything_gets_the_end_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Connection, "GRACE", 0.01)
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        pool, watcher = SocketPool(), Stopped()
        closed: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()
        connection = Connection(
            caller=Caller("acme", "ann"),
            chunked=True,
            pool=pool,
            watcher=watcher,
            on_closed=lambda _, reason: closed.set_result(reason),
            cut=True,
        )
        connection.open(ours.detach())
        assert not connection.send(b"x" * 1_000_000, 0.0)
        connection.close(ENDED)
        loop = asyncio.get_running_loop()
        # Time passes, far more than a stream that is broken off is given.
        for _ in range(20):
            await asyncio.sleep(0.01)
            connection.check(loop.time(), 0.0, write_timeout=30)
        received = bytearray()
        async with asyncio.timeout(60):
            while data := await loop.sock_recv(theirs, 65536):
                received += data
        assert received.endswith(b"0\r\n\r\n")
        assert await closed is CloseReason.JOB_ENDED
        pool.close()


async def test_what_the_kernel_could_not_take_is_written_before_what_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        pool, write, fails = SocketPool(), os.write, [OSError(errno.ENOBUFS, "no buffers")]
        connection = Connection(
            caller=Caller("acme", "ann"),
            chunked=False,
            pool=pool,
            watcher=Stopped(),
            on_closed=lambda *_: None,
        )
        connection.open(ours.detach())

        def failing(fd: int, data: Buffer) -> int:
            if fails:
                raise fails.pop()
            return write(fd, data)

        monkeypatch.setattr(os, "write", failing)
        assert not connection.send(b"first", 0.0)
        assert not connection.send(b"second", 0.0)
        async with asyncio.timeout(60):
            received = b""
            while len(received) < len(b"firstsecond"):
                received += await asyncio.get_running_loop().sock_recv(theirs, 100)
        assert received == b"firstsecond"
        connection.close(GONE)
        pool.close()


@pytest.mark.parametrize("stalls", [True, False])
async def test_one_that_takes_nothing_is_left_and_a_shutdown_waits_a_moment_alone(
    monkeypatch: pytest.MonkeyPatch, stalls: bool
) -> None:
    monkeypatch.setattr(Connection, "GRACE", 0.01)
    ours, theirs = socket.socketpair()
    with theirs:
        pool, watcher = SocketPool(), Stopped()
        closed: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()
        connection = Connection(
            caller=Caller("acme", "ann"),
            chunked=True,
            pool=pool,
            watcher=watcher,
            on_closed=lambda _, reason: closed.set_result(reason),
        )
        connection.open(ours.detach())
        assert not connection.send(b"x" * 1_000_000, 0.0)
        connection.close(ENDED)
        now = asyncio.get_running_loop().time()
        connection.check(now, 0.0, write_timeout=30)
        assert not closed.done()
        if stalls:
            connection.check(now + 31, 0.0, write_timeout=30)
        else:
            connection.close(drained(retry_ms=7))
        async with asyncio.timeout(60):
            assert await closed is CloseReason.JOB_ENDED
        pool.close()
