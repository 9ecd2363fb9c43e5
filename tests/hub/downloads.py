"""A log that is read as one body: what came, and whether all of it did."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Download:
    """An answer, without the framing of HTTP."""

    status: int
    headers: Mapping[str, str]
    #: Of a body in gzip, as far as it can be unpacked.
    body: bytes
    #: Whether the client could tell that it has everything: no length, no last chunk, or a
    #: connection that was reset says that it has not.
    complete: bool
    #: What came of the body, with its coding.
    packed: bytes

    @property
    def lines(self) -> list[str]:
        assert not self.body or self.body.endswith(b"\n")
        return self.body.decode().split("\n")[:-1]

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The lines of NDJSON."""
        return [json.loads(line) for line in self.lines]

    @property
    def data(self) -> Any:
        """The data of an answer in the platform's envelope."""
        return json.loads(self.body)["data"]


async def download(
    address: tuple[str, int],
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    http: str = "1.1",
) -> Download:
    """Get a path, and read to the end of the connection."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(head_of(path, headers=headers or {}, http=http))
    received, reset = bytearray(), False
    try:
        async with asyncio.timeout(PATIENCE):
            while data := await reader.read(65536):
                received += data
    except ConnectionError:
        reset = True
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return parsed(bytes(received), reset=reset)


def head_of(path: str, *, headers: Mapping[str, str], http: str = "1.1") -> bytes:
    """The head of a GET request."""
    lines = [f"GET {path} HTTP/{http}", "Host: test", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def parsed(received: bytes, *, reset: bool = False) -> Download:
    """Read an answer as it came."""
    head, _, rest = received.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    told = {name.lower(): value for name, _, value in (line.partition(": ") for line in fields)}
    complete = not reset
    if told.get("transfer-encoding") == "chunked":
        rest, ended = unchunked(rest)
        complete = complete and ended
    elif "content-length" in told:
        complete = complete and len(rest) == int(told["content-length"])
    body = rest
    if told.get("content-encoding") == "gzip":
        body = gzip.decompress(rest) if complete else zlib.decompressobj(31).decompress(rest)
    return Download(int(first.split()[1]), told, body, complete, rest)


def unchunked(data: bytes) -> tuple[bytes, bool]:
    """Take the chunks apart; whether the last one was there."""
    parts: list[bytes] = []
    while data:
        head, _, rest = data.partition(b"\r\n")
        size = int(head or b"0", 16)
        parts.append(rest[:size])
        if size == 0 and head:
            return b"".join(parts), rest == b"\r\n"
        data = rest[size + 2 :]
    return b"".join(parts), False
