"""Messages of a connection between an agent and the coordinator, each behind its length."""

import asyncio
import socket
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

_LENGTH: Final = 4
_M = TypeVar("_M", bound=Message)


class NotAMessage(Exception):
    """What came is none, or longer than any is."""


def framed(message: Message) -> bytes:
    """Return a message as it is sent."""
    data = message.SerializeToString()
    return len(data).to_bytes(_LENGTH, "big") + data


async def read_message(reader: asyncio.StreamReader, kind: type[_M], *, most: int) -> _M:
    """Wait for the next message, of at most `most` bytes.

    Raises NotAMessage; EOFError if the connection was closed, OSError.
    """
    size = int.from_bytes(await reader.readexactly(_LENGTH), "big")
    if size > most:
        raise NotAMessage(f"a message of {size} bytes")
    try:
        return kind.FromString(await reader.readexactly(size))
    except DecodeError as error:
        raise NotAMessage(str(error)) from None


def notice_lost_peers(writer: asyncio.StreamWriter) -> None:
    """Have the connection break when the other machine is gone, though nothing is sent."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, 10),
        (socket.TCP_KEEPINTVL, 5),
        (socket.TCP_KEEPCNT, 3),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
