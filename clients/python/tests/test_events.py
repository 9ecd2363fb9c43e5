"""Many jobs in one stream, stepped by hand: their state is current, each event comes once."""

import json
import random
from typing import Any

import pytest

from scaimind.core.commands import Answer, Emit, Open, Pause, Receive
from scaimind.core.entries import Gap, LogLine
from scaimind.core.events import (
    JobChanged,
    JobGone,
    JobMetrics,
    Limited,
    LogEnded,
    NodeChanged,
    QueueChanged,
    Synced,
    View,
    follow_events,
)

STREAM = {"content-type": "text/event-stream"}


def event(name: str, data: dict[str, Any], id: str = "") -> bytes:
    head = f"id: {id}\n" if id else ""
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def job(name: str, revision: int, status: str = "TRAINING") -> bytes:
    return event("job", {"job_id": name, "revision": revision, "status": status})


def log(name: str, offset: int, epoch: str = "e") -> bytes:
    entry = {"job_id": name, "epoch": epoch, "offset": offset, "level": "INFO", "message": "m"}
    return event("log", entry)


def bookmark(id: str) -> bytes:
    return event("bookmark", {}, id)


def follow(*connections: bytes, view: View | None = None) -> tuple[list[Any], View, list[Open]]:
    """Step through connections that each break behind what they bring."""
    view = view or View()
    steps = follow_events((), view)
    left, asked, emitted = list(connections), list[Open](), list[Any]()
    pieces: list[bytes] = []
    told: Any = None
    while True:
        command = steps.send(told)
        told = None
        match command:
            case Open():
                if not left:
                    return emitted, view, asked
                asked.append(command)
                told, pieces = Answer(200, STREAM), [left.pop(0), b""]
            case Receive():
                told = pieces.pop(0)
            case Emit(item):
                emitted.append(item)
            case Pause():
                pass


def test_the_state_comes_first_and_then_its_changes() -> None:
    synced = event("synced", {"jobs": 2})
    emitted, view, asked = follow(job("a", 1) + job("b", 1) + synced + bookmark("x") + job("a", 2))
    assert [type(each) for each in emitted] == [JobChanged, JobChanged, Synced, JobChanged]
    assert {name: each.revision for name, each in view.jobs.items()} == {"a": 2, "b": 1}
    assert view.synced
    assert ("Last-Event-ID", "x") not in asked[0].request.headers


def test_a_connection_that_is_made_again_doubles_nothing() -> None:
    first = job("a", 1) + event("synced", {}) + bookmark("x") + job("a", 2) + log("a", 1)
    again = job("a", 2) + event("synced", {}) + log("a", 1) + log("a", 2) + job("a", 1)
    emitted, view, asked = follow(first, again)
    assert [each.offset for each in emitted if isinstance(each, LogLine)] == [1, 2]
    assert [each.job.revision for each in emitted if isinstance(each, JobChanged)] == [1, 2]
    assert view.jobs["a"].revision == 2
    assert ("Last-Event-ID", "x") in asked[1].request.headers


def test_a_reset_drops_what_is_not_in_the_new_state() -> None:
    first = job("a", 5) + job("b", 5) + event("synced", {}) + bookmark("x")
    reset = event("reset", {"reason": "expired"}) + job("a", 1) + event("synced", {})
    emitted, view, _ = follow(first, reset)
    assert [each.job_id for each in emitted if isinstance(each, JobGone)] == ["b"]
    assert {name: each.revision for name, each in view.jobs.items()} == {"a": 1}


def test_a_state_that_breaks_off_is_told_anew() -> None:
    emitted, view, _ = follow(job("a", 1) + job("b", 1), job("b", 1) + event("synced", {}))
    assert [each.job_id for each in emitted if isinstance(each, JobGone)] == ["a"]
    assert list(view.jobs) == ["b"]


def test_a_reset_that_breaks_off_drops_nothing() -> None:
    first = job("a", 1) + job("b", 1) + event("synced", {}) + bookmark("x")
    broken = event("reset", {"reason": "expired"}) + job("a", 2)
    emitted, view, _ = follow(first, broken, event("synced", {}))
    assert not any(isinstance(each, JobGone) for each in emitted)
    assert sorted(view.jobs) == ["a", "b"]


def test_a_job_that_leaves_is_gone() -> None:
    gone = event("job_gone", {"job_id": "a", "reason": "deleted"})
    emitted, view, _ = follow(job("a", 1) + log("a", 3) + gone + gone + job("a", 1) + log("a", 1))
    assert emitted[2] == JobGone("a", "deleted")
    assert [type(each) for each in emitted[3:]] == [JobChanged, LogLine]
    assert list(view.jobs) == ["a"]


def test_the_rest_is_told_on_change() -> None:
    node = event("node", {"node_id": "n", "status": "ONLINE"})
    queue = event("queue", {"total_queued": 1})
    point = {"job_id": "a", "epoch": "e", "sequence": 4, "step": 1, "loss": 1.0}
    gap = {"job_id": "a", "epoch": "e", "offset": 7, "from": "e:3", "to": "e:7", "reason": "x"}
    rest = event("metrics", point) + event("gap", gap)
    rest += event("limit", {"matching": 70, "followed": 64})
    rest += event("end", {"job_id": "a", "epoch": "e", "offset": 7, "status": "FAILED"})
    emitted, view, _ = follow(node + queue + rest, node + queue + rest)
    assert [type(each) for each in emitted] == [
        *(NodeChanged, QueueChanged, JobMetrics, Gap, Limited, LogEnded),
        Limited,
    ]
    assert emitted[5] == LogEnded("a", "FAILED")
    assert view.nodes["n"].status == "ONLINE"
    assert view.queue is not None
    assert view.queue.total_queued == 1


class World:
    """Jobs that change, by version, as the gateway's record has them."""

    def __init__(self, rand: random.Random) -> None:
        self.rand = rand
        self.changes: list[tuple[str, int]] = []
        self.lines: dict[str, int] = {}

    def grow(self) -> None:
        for _ in range(self.rand.randrange(1, 6)):
            name = self.rand.choice("abcdef")
            self.changes.append((name, 0 if self.rand.random() < 0.2 else len(self.changes) + 1))
            self.lines[name] = self.lines.get(name, 0) + self.rand.randrange(3)

    def jobs(self) -> dict[str, int]:
        return {name: revision for name, revision in dict(self.changes).items() if revision}

    def connection(self, last_id: str, sent: dict[str, int]) -> bytes:
        """What one connection brings before it breaks, at any byte."""
        version = int(last_id.partition(".")[0] or 0)
        reset = bool(last_id) and self.rand.random() < 0.2
        out = event("reset", {"reason": "expired"}) if reset else b""
        known = {} if reset or not last_id else dict(self.changes[version:])
        told = known or (self.jobs() if reset or not last_id else {})
        for name, revision in told.items():
            out += job(name, revision) if revision else self._gone(name)
        out += event("synced", {}) + bookmark(f"{len(self.changes)}.{json.dumps(sent)}")
        for name, last in self.lines.items():
            begin = json.loads(last_id.partition(".")[2] or "{}").get(name, 0)
            for offset in range(begin + 1, last + 1):
                out += log(name, offset)
                sent[name] = offset
        out += bookmark(f"{len(self.changes)}.{json.dumps(sent)}")
        return out

    def _gone(self, name: str) -> bytes:
        return event("job_gone", {"job_id": name, "reason": "deleted"})


@pytest.mark.parametrize("seed", range(100))
def test_whatever_breaks_the_state_is_that_of_the_gateway(seed: int) -> None:
    rand = random.Random(seed)
    world, view = World(rand), View()
    emitted: list[Any] = []
    for number in range(8):
        world.grow()
        sent: dict[str, int] = {}
        whole = world.connection(view.link.last_id, sent)
        cut = whole if number == 7 else whole[: rand.randrange(len(whole))]
        more, _, _ = follow(cut, view=view)
        emitted += more
    assert {name: each.revision for name, each in view.jobs.items()} == world.jobs()
    shown: dict[str, int] = {}
    for each in emitted:
        if isinstance(each, JobChanged):
            shown[each.job.job_id] = each.job.revision
        elif isinstance(each, JobGone):
            del shown[each.job_id]
    assert shown == world.jobs(), "what was told adds up to the state"
