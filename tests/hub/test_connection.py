"""A connection whose client does not read: what is sent keeps its order, the end comes last."""

import asyncio
import socket

from app.caller import Caller
from app.hub.close_reasons import CloseReason
from app.hub.connection import Closing, Connection, drained, event_of
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
        async with asyncio.timeout(10):
            while data := await loop.sock_recv(theirs, 65536):
                received += data
            assert await closed is CloseReason.SHUTDOWN
        assert watcher.left
        assert [each.id for each in parse(received)] == ["e:1", "e:2", "e:3", "e:3"]
        assert parse(received)[-1].data["code"] == "SHUTTING_DOWN"
        pool.close()
