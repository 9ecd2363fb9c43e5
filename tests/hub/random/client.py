"""A client of one log: it reads as fast as it is told to, comes back, and checks what it got."""

import asyncio
import json
import socket
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from app.caller import Caller
from app.hub.core.forms import FormName
from app.hub.hub import Hub
from app.hub.upstream import JobKey, Position
from app.log_filter import LogFilter
from tests.hub.random.upstream import Job, RandomUpstream
from tests.hub.sse import Event, Parser

#: Gaps behind which the log goes on in another one, or from a tail of it.
ANEW = ("epoch_changed", "log_rewound", "unknown_epoch", "future_offset")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a client asks for."""

    key: JobKey
    filter: LogFilter
    form: FormName
    chunked: bool
    gzip: bool
    tail: int
    #: Where it begins, in place of the tail: by chance of the whole log.
    share: float | None
    follow: bool


class Client:
    """One client over all its connections."""

    def __init__(self, wish: Wish, upstream: RandomUpstream) -> None:
        self.wish = wish
        self._upstream = upstream
        #: Behind which it has had everything, by the ids that it got.
        self.place: Position | None = None
        #: Which versions of the log it may still be told of.
        self.version = 0
        #: The tokens that it got, by offset, of the log that it reads.
        self.tokens: dict[str, int] = {}
        self.over = False
        self.until: Position | None = None
        self._socket: socket.socket | None = None
        self._raw = b""
        self._parser = Parser()
        self._line = b""
        self._unzip: zlib._Decompress | None = None

    @property
    def connected(self) -> bool:
        return self._socket is not None

    @property
    def _job(self) -> Job:
        return self._upstream.job(self.wish.key)

    # Connections

    async def connect(self, hub: Hub, *, send_buffer: int) -> None:
        """Join, at the place that it has reached. Raises `ApiError`."""
        wish, job = self.wish, self._job
        after = self.place
        if after is None and wish.share is not None:
            log = job.log
            offset = log.base + int((log.last - log.base) * wish.share)
            after = Position(log.epoch, offset)
        watcher = await hub.watch_logs(
            Caller(wish.key.tenant_id, "ann"),
            wish.key.job_id,
            log_filter=wish.filter,
            form=wish.form,
            chunked=wish.chunked,
            tail=wish.tail,
            after=after,
            first=None,
            follow=wish.follow,
            gzip=wish.gzip,
        )
        if watcher is None:
            assert job.ended
            assert after == Position(job.log.epoch, job.log.last)
            self.over = True
            return
        core = watcher.feed.core
        if self.place is None:
            self.place = after
        if watcher.until is not None:
            self.until = Position(core.epoch, watcher.until)
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        theirs.setblocking(False)
        self._raw, self._line, self._parser, self._unzip = b"", b"", Parser(), None
        if watcher.connection.gzip is not None:
            self._unzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._socket = theirs
        watcher.start(ours.detach())

    def _begin(self, event: Event) -> Position:
        """Return the place before the first event of a tail."""
        begin = Position(event.epoch, event.offset)
        if event.name == "log":
            begin = Position(event.epoch, event.offset - 1)
        elif event.name == "gap":
            begin = Position.parse(event.data["from"])
            begin = Position(begin.epoch, begin.offset - 1)
        return begin

    def disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # Reading

    def read(self, size: int) -> bool:
        """Read so many bytes at most; whether there were any."""
        if self._socket is None:
            return False
        data = b""
        with suppress(BlockingIOError):
            data = self._socket.recv(size)
            if not data:
                self.disconnect()
                return False
        for event in self._events(self._decoded(data)):
            self._take(event)
            if self.over:
                break
        return bool(data)

    async def until_over(self) -> None:
        """Read on until the stream has ended, or broken off."""
        loop = asyncio.get_running_loop()
        while self._socket is not None and not self.over:
            if not self.read(65_536) and self._socket is not None:
                ready = asyncio.Event()
                loop.add_reader(self._socket, ready.set)
                try:
                    await ready.wait()
                finally:
                    loop.remove_reader(self._socket)

    def _decoded(self, data: bytes) -> bytes:
        self._raw += data
        if not self.wish.chunked:
            body, self._raw = self._raw, b""
        else:
            body = b""
            while b"\r\n" in self._raw:
                head, _, rest = self._raw.partition(b"\r\n")
                size = int(head, 16)
                if len(rest) < size + 2:
                    break
                assert rest[size : size + 2] == b"\r\n"
                body, self._raw = body + rest[:size], rest[size + 2 :]
        return body if self._unzip is None else self._unzip.decompress(body)

    def _events(self, data: bytes) -> list[Event]:
        if self.wish.form is FormName.SSE:
            return list(self._parser.feed(data))
        *lines, self._line = (self._line + data).split(b"\n")
        return [_event_of(json.loads(line)) for line in lines]

    # What it must have got

    def _take(self, event: Event) -> None:
        if event.name == "error":
            assert event.data["retryable"], event
            return
        place = self.place = self.place or self._begin(event)
        to = Position(event.epoch, event.offset)
        if event.name == "gap":
            self._take_gap(event, place, to)
            return
        assert to.epoch == place.epoch, f"{event} behind {place}"
        assert to.offset >= place.offset, f"{event} behind {place}"
        if event.name == "log":
            assert event.data["offset"] == to.offset
            self._check_passed_over(place, to.offset - 1)
            self._take_entry(event, to)
        else:
            self._check_passed_over(place, to.offset)
        self.place = to
        if event.name == "end":
            self.over = True
            job = self._job
            assert self.until is not None or to == Position(job.log.epoch, job.log.last)
            assert self.until is None or to.epoch != self.until.epoch or to >= self.until

    def _take_entry(self, event: Event, to: Position) -> None:
        log = self._job.logs[to.epoch]
        token, _, rest = event.data["message"].partition(" ")
        entries = [each for each in log.ever(to.offset, self.version) if each.token == token]
        assert entries, f"{event.id} is not what the log has there: {token}"
        assert entries[0].rest == rest
        assert entries[0].passes(self.wish.filter)
        assert token not in self.tokens, f"{event.id} came twice"
        self.tokens[token] = to.offset

    def _take_gap(self, event: Event, place: Position, to: Position) -> None:
        reason, start = event.data["reason"], Position.parse(event.data["from"])
        if reason in ANEW:
            # The log goes on in another one: what it shares with the old one is not sent again.
            rewound = reason == "log_rewound"
            self._check_passed_over(place, to.offset if rewound else start.offset - 1)
            self.version += reason == "log_rewound"
            if to.epoch != place.epoch:
                self.version = 0
            self.tokens = {
                token: offset
                for token, offset in self.tokens.items()
                if to.epoch == place.epoch and offset <= to.offset
            }
            if to.epoch != place.epoch or reason == "log_rewound":
                # It gets what there is now.
                self.until = self.until and Position(to.epoch, 0)
            self.place = to
            return
        assert reason in ("dropped", "missing"), event
        assert start.epoch == place.epoch == to.epoch
        self._check_passed_over(place, start.offset - 1)
        assert Position.parse(event.data["to"]) == to
        log = self._job.logs[to.epoch]
        first = max(start.offset, log.base + 1)
        there = [n for n in range(first, to.offset + 1) if log.kept(n)]
        assert not there or len(log.versions) > 1, f"{event} tells of entries that exist: {there}"
        self.place = to

    def _check_passed_over(self, place: Position, upto: int) -> None:
        """What was neither sent nor told must be what the filter keeps away."""
        log = self._job.logs[place.epoch]
        for offset in range(max(place.offset, log.base) + 1, upto + 1):
            entries = list(log.ever(offset, self.version))
            passing = [each for each in entries if each.passes(self.wish.filter)]
            assert len(passing) < max(len(entries), 1), f"{offset} of {place.epoch} is not there"


def _event_of(line: dict[str, Any]) -> Event:
    return Event(name=line.pop("event", "log"), id=line.pop("id"), data=line)
