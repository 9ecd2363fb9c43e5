"""A client that wants every line: it comes back behind its last id, whatever happens."""

import asyncio
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp
import orjson

from tests.hub.sse import Event, Parser

#: Answers after which a client tries again.
PASSING = frozenset({429, 502, 503, 504})
#: Seconds of silence, keepalives included, after which a client connects anew.
SILENCE = 8.0

_ID = re.compile(r"[a-z0-9]{1,32}:(0|[1-9][0-9]{0,17})", re.ASCII)
LEVELS: Mapping[str, int] = {"DEBUG": 0, "INFO": 2, "WARNING": 3, "ERROR": 4}


@dataclass
class Watcher:
    """Follows a job's log to its end, over any number of connections."""

    url: str
    key: str
    level: str = "DEBUG"
    #: Seconds for which it pauses behind each piece that it read.
    pause: float = 0.0
    #: Statuses of answers after which it tries again.
    passing: frozenset[int] = PASSING

    last_id: str = ""
    #: Offset and message of each entry, as they came.
    lines: list[tuple[int, str]] = field(default_factory=list)
    #: Ranges of offsets that it was told are missing.
    told: list[tuple[int, int]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    #: Codes of the `error` events that it got.
    codes: list[str] = field(default_factory=list)
    #: Codes of the answers that were no streams.
    refusals: list[str] = field(default_factory=list)
    #: Whether a stream is open, and how many were.
    is_open: bool = False
    connections: int = 0
    #: Connections that ended without a last event.
    broken: int = 0
    ended: bool = False
    #: When the newest line was written by the job, in seconds of the wall clock.
    written_at: float = 0.0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Follow until the end of the log."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE)
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            while not self.ended:
                try:
                    await self._connect(session)
                except (aiohttp.ClientError, TimeoutError, OSError):
                    self.broken += 1
                except (AssertionError, ValueError, KeyError) as error:
                    self.wrong.append(f"an event that cannot be read: {error}")
                if not self.ended:
                    await asyncio.sleep(random.uniform(0.05, 0.3))

    def query(self) -> dict[str, str]:
        """Return the query of a connection."""
        return {"tail": "1000000", "level": self.level}

    async def live_since(self, moment: float) -> float:
        """Wait for a line that was written after a moment of the wall clock; seconds waited."""
        began = time.monotonic()
        while self.written_at < moment and not self.ended:
            self.news.clear()
            await self.news.wait()
        return time.monotonic() - began

    async def _connect(self, session: aiohttp.ClientSession) -> None:
        headers = {"Authorization": f"Bearer {self.key}"}
        if self.last_id:
            headers["Last-Event-ID"] = self.last_id
        async with session.get(self.url, params=self.query(), headers=headers) as answer:
            if answer.status != 200:
                await self._refused(answer)
                return
            self.connections += 1
            self.is_open = True
            try:
                await self._read(answer.content)
            finally:
                self.is_open = False
                self.news.set()

    async def _read(self, content: aiohttp.StreamReader) -> None:
        parser = Parser()
        async for data in content.iter_any():
            for event in parser.feed(data):
                if not self._take(event):
                    return
            if self.pause:
                await asyncio.sleep(self.pause)
        self.broken += 1

    async def _refused(self, answer: aiohttp.ClientResponse) -> None:
        if answer.status == 204:
            self.ended = True
            self.news.set()
            return
        body = await answer.read()
        try:
            code = orjson.loads(body)["error"]["code"]
        except (ValueError, KeyError, TypeError):
            code = "no envelope"
        if answer.status not in self.passing or code == "no envelope":
            self.wrong.append(f"{answer.status} {code}")
            await asyncio.sleep(0.5)
        self.refusals.append(code)
        self.news.set()

    def _take(self, event: Event) -> bool:
        """Note an event; whether more come on this connection."""
        if not _ID.fullmatch(event.id):
            self.wrong.append(f"the id {event.id[:40]!r}")
        if event.name == "log":
            self._take_line(event)
        elif event.name == "gap":
            self._take_gap(event.data)
        elif event.name == "end":
            if event.data["status"] != "COMPLETED":
                self.wrong.append(f"the end {event.data['status']}")
            self.ended = True
            self.news.set()
        elif event.name == "error":
            self.codes.append(event.data["code"])
            if not event.data["retryable"]:
                self.wrong.append(f"a final error {event.data['code']}")
            self.news.set()
        self.last_id = event.id
        return event.name not in ("end", "error")

    def _take_line(self, event: Event) -> None:
        self.lines.append((event.offset, event.data["message"]))
        at = event.data.get("timestamp")
        if at:
            self.written_at = max(self.written_at, datetime.fromisoformat(at).timestamp())
        self.news.set()

    def _take_gap(self, data: Mapping[str, Any]) -> None:
        if data["to"] is None:
            self.wrong.append(f"a gap {data['reason']}")
        else:
            first, last = (int(data[end].partition(":")[2]) for end in ("from", "to"))
            self.told.append((first, last))
        self.news.set()
