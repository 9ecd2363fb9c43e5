"""Clients that read a log in other ways than its own stream, over any number of connections."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from scripts.chaos_rig.watching import PASSING, SILENCE, Watcher
from tests.hub.sse import Event, Parser


class NdjsonWatcher(Watcher):
    """Follows a job's log as NDJSON, on from its last id."""

    def query(self) -> dict[str, str]:
        """Return the query of a connection."""
        return {**super().query(), "format": "ndjson"}

    async def _read(self, content: aiohttp.StreamReader) -> None:
        async for line in content:
            if not line.endswith(b"\n"):
                break  # the connection was cut within it
            told: dict[str, Any] = orjson.loads(line)
            name = told.pop("event", "log")
            if not self._take(Event(name=name, id=told.pop("id"), data=told)):
                return
        self.broken += 1


@dataclass
class EventsWatcher:
    """Follows several jobs in one stream, at one replica after the other; drops doubles."""

    #: Addresses of `/events`, one for each replica.
    urls: Sequence[str]
    key: str
    #: What it got of each job, by id.
    jobs: dict[str, Watcher] = field(default_factory=dict)

    cursor: str = ""
    wrong: list[str] = field(default_factory=list)
    connections: int = 0
    _seen: set[tuple[str, str, int]] = field(default_factory=set)

    async def run(self) -> None:
        """Follow until all jobs have ended."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE)
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            while not self._ended:
                try:
                    await self._connect(session, self.urls[self.connections % len(self.urls)])
                except (aiohttp.ClientError, TimeoutError, OSError):
                    pass
                except (AssertionError, ValueError, KeyError) as error:
                    self.wrong.append(f"an event that cannot be read: {error!r}")
                self.connections += 1
                if not self._ended:
                    await asyncio.sleep(random.uniform(0.05, 0.3))

    @property
    def _ended(self) -> bool:
        return all(each.ended for each in self.jobs.values())

    async def _connect(self, session: aiohttp.ClientSession, url: str) -> None:
        headers = {"Authorization": f"Bearer {self.key}"}
        if self.cursor:
            headers["Last-Event-ID"] = self.cursor
        query = [("include", "jobs,logs"), ("tail", "1000000"), ("level", "DEBUG")]
        query += [("job_id", job_id) for job_id in self.jobs]
        async with session.get(url, params=query, headers=headers) as answer:
            if answer.status != 200:
                if answer.status not in PASSING:
                    self.wrong.append(f"{answer.status} of /events")
                    await asyncio.sleep(0.5)
                return
            parser = Parser(many=True)
            async for data in answer.content.iter_any():
                for event in parser.feed(data):
                    self._take(event)
                if self._ended:
                    return

    def _take(self, event: Event) -> None:
        if event.name == "bookmark":
            self.cursor = event.id
        elif event.name in ("log", "gap", "end"):
            self._take_of_job(event.name, self.jobs[event.data["job_id"]], event.data)
        elif event.name == "error" and not event.data["retryable"]:
            self.wrong.append(f"a final error {event.data['code']}")
        elif event.name in ("reset", "job_gone", "limit"):
            # The coordinator keeps its record across all that happens to it here.
            self.wrong.append(f"the event {event.name} {event.data}")

    def _take_of_job(self, name: str, job: Watcher, data: dict[str, Any]) -> None:
        if name == "log":
            place = (data["job_id"], data["epoch"], data["offset"])
            if place not in self._seen:
                self._seen.add(place)
                job.lines.append((data["offset"], data["message"]))
        elif name == "gap":
            job.wrong.append(f"a gap {data['reason']}")
        else:
            if data["status"] != "COMPLETED":
                job.wrong.append(f"the end {data['status']}")
            job.ended = True


@dataclass
class Searcher:
    """Searches a log for what every tenth line says, again and again; judged against the log."""

    url: str
    key: str
    text: str

    #: Searches that reached the beginning of the log, and those that broke off.
    searches: int = 0
    broken: int = 0
    wrong: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Search until cancelled."""
        timeout = aiohttp.ClientTimeout(total=20)
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            while True:
                try:
                    await self._search(session)
                except (aiohttp.ClientError, TimeoutError, OSError):
                    self.broken += 1
                except (AssertionError, ValueError, KeyError) as error:
                    self.wrong.append(f"a search that cannot be read: {error!r}")
                await asyncio.sleep(0.3)

    async def _search(self, session: aiohttp.ClientSession) -> None:
        headers = {"Authorization": f"Bearer {self.key}"}
        query = {"contains": self.text, "limit": "1000"}
        async with session.get(self.url, params=query, headers=headers) as answer:
            if answer.status != 200:
                self.broken += 1
                if answer.status not in PASSING:
                    self.wrong.append(f"{answer.status} of a search")
                return
            parser, found = Parser(), []
            async for data in answer.content.iter_any():
                for event in parser.feed(data):
                    if event.name == "match":
                        found.append(event.data["entry"])
                    elif event.name == "done":
                        self._judge(found, event.data)
                        return
        self.broken += 1

    def _judge(self, found: Sequence[dict[str, Any]], done: dict[str, Any]) -> None:
        """Each match must be one, newest first, once; and of those there is a tenth number each."""
        self.searches += 1
        numbers = [int(each["message"].rpartition(" ")[2]) for each in found]
        if done["reason"] == "exhausted" and numbers != list(range(len(numbers) * 10, 0, -10)):
            self.wrong.append(f"a search that found {numbers[:3]} ... {numbers[-3:]}")
        if done["matches"] != len(found):
            self.wrong.append("a search that counts other matches than it sent")
