"""A follower, stepped by hand: each line once, through whatever happens."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from scaimind.core.commands import Answer, Command, Emit, NewToken, Open, Pause, Receive, Send
from scaimind.core.cursor import Cursor
from scaimind.core.entries import Gap, LogLine
from scaimind.core.follow import Following, follow_logs
from scaimind.errors import ApiError, AuthenticationFailed, ConnectionFailed, NotFound

STREAM = {"content-type": "text/event-stream"}


def log(offset: int, epoch: str = "e") -> bytes:
    entry = {"offset": offset, "level": "INFO", "message": f"line {offset}", "timestamp": None}
    return f"id: {epoch}:{offset}\nevent: log\ndata: {json.dumps(entry)}\n\n".encode()


def event(name: str, data: dict[str, Any], last_id: str = "") -> bytes:
    head = f"id: {last_id}\n" if last_id else ""
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n".encode()


END = event("end", {"status": "COMPLETED", "last_id": "e:9"}, "e:9")

#: What a connection brings: the head, then pieces; an exception breaks it.
Connection = tuple[Answer | Exception, list[bytes | Exception]]


def ok(*pieces: bytes | Exception) -> Connection:
    return Answer(200, STREAM), list(pieces)


def refused(status: int, code: str = "X", **headers: str) -> Connection:
    body = json.dumps({"error": {"code": code, "message": "no"}}).encode()
    return Answer(status, headers, body), []


def follow(
    connections: list[Connection],
    *,
    begin: Cursor | None = None,
    renew: Callable[[], bool] = lambda: False,
    job: dict[str, Any] | None = None,
) -> tuple[list[Any], Following, list[Open], list[float]]:
    """Step through it; what it emitted, where it is, what it asked for and how long it waited."""
    following = Following(cursor=begin)
    steps = follow_logs("j", (("tail", "10"),), following, path="/jobs/j/logs")
    emitted: list[Any] = []
    asked: list[Open] = []
    paused: list[float] = []
    pieces: list[bytes | Exception] = []
    told: Any = None
    problem: Exception | None = None
    try:
        while True:
            command: Command = steps.send(told) if problem is None else steps.throw(problem)
            told = problem = None
            match command:
                case Open():
                    asked.append(command)
                    told, pieces = connections.pop(0)
                case Receive():
                    told = pieces.pop(0) if pieces else b""
                case Emit(item):
                    emitted.append(item)
                case Pause(seconds):
                    paused.append(seconds)
                case NewToken():
                    told = renew()
                case Send():
                    told = Answer(200, {}, json.dumps({"data": job}).encode())
            if isinstance(told, Exception):
                problem, told = told, None
    except StopIteration:
        return emitted, following, asked, paused


def offsets(items: list[Any]) -> list[int]:
    return [item.offset for item in items if isinstance(item, LogLine)]


def test_a_job_that_ends_ends_the_follower() -> None:
    emitted, following, _, paused = follow([ok(log(1) + log(2), END)])
    assert offsets(emitted) == [1, 2]
    assert following.status == "COMPLETED"
    assert paused == []


def test_a_stream_that_closes_without_an_end_is_taken_up_again() -> None:
    emitted, following, asked, _ = follow([ok(log(1)), ok(log(2), END)])
    assert offsets(emitted) == [1, 2]
    assert ("Last-Event-ID", "e:1") in asked[1].request.headers
    assert following.status == "COMPLETED"


def test_lines_that_come_twice_are_told_once() -> None:
    emitted, *_ = follow([ok(log(1) + log(2)), ok(log(1) + log(2) + log(3), END)])
    assert offsets(emitted) == [1, 2, 3]


def test_lines_of_another_log_are_all_told() -> None:
    emitted, *_ = follow([ok(log(5)), ok(log(1, "f") + log(2, "f"), END)])
    assert offsets(emitted) == [5, 1, 2]


def test_what_is_missing_is_told() -> None:
    gap = event("gap", {"from": "e:3", "to": "e:7", "reason": "dropped"}, "e:7")
    unknown = event("gap", {"from": "e:9", "to": None, "reason": "epoch_changed"}, "f:0")
    emitted, *_ = follow([ok(gap, log(8), unknown, END)])
    assert emitted[0] == Gap("j", Cursor("e", 3), Cursor("e", 7), "dropped")
    assert str(emitted[0]) == "lines 3 to 7 are missing: dropped"
    assert str(emitted[2]) == "lines from 9 on are missing: epoch_changed"


def test_a_job_that_has_ended_meanwhile_is_looked_at() -> None:
    _, following, *_ = follow([ok(log(1)), (Answer(204, {}), [])], job={"status": "FAILED"})
    assert following.status == "FAILED"


def test_a_broken_connection_is_survived_but_not_at_the_first_try() -> None:
    emitted, *_ = follow(
        [ok(log(1), ConnectionFailed("cut")), (ConnectionFailed("no"), []), ok(log(2), END)]
    )
    assert offsets(emitted) == [1, 2]
    with pytest.raises(ConnectionFailed):
        follow([(ConnectionFailed("no"), [])])


def test_an_error_that_may_pass_is_waited_out() -> None:
    shutdown = event("error", {"error": "stream ended", "code": "SHUTTING_DOWN", "retryable": True})
    emitted, _, _, paused = follow(
        [ok(log(1), b"retry: 4000\n", shutdown), refused(503, **{"retry-after": "7"}), ok(END)]
    )
    assert offsets(emitted) == [1]
    assert paused[0] >= 4
    assert paused[1] >= 7


def test_a_refusal_that_lasts_is_raised() -> None:
    with pytest.raises(NotFound):
        follow([ok(log(1)), refused(404, "JOB_NOT_FOUND")])
    deleted = event("error", {"error": "deleted", "code": "JOB_DELETED", "retryable": False})
    with pytest.raises(NotFound) as caught:
        follow([ok(log(1), deleted)])
    assert caught.value.code == "JOB_DELETED"


def test_a_token_that_ended_is_renewed_once() -> None:
    expired = event("error", {"error": "stream ended", "code": "AUTH_EXPIRED", "retryable": False})
    emitted, *_ = follow([ok(log(1), expired), refused(401), ok(log(2), END)], renew=lambda: True)
    assert offsets(emitted) == [1, 2]
    with pytest.raises(AuthenticationFailed):
        follow([ok(log(1)), refused(401), refused(401)], renew=lambda: True)
    with pytest.raises(AuthenticationFailed):
        follow([refused(401)])


def test_a_stream_that_never_began_is_given_up() -> None:
    with pytest.raises(ApiError):
        follow([refused(503) for _ in range(5)])


@pytest.mark.parametrize("seed", range(200))
def test_whatever_breaks_each_line_comes_once(seed: int) -> None:
    rand = random.Random(seed)
    whole = b"".join(log(at) for at in range(1, 40)) + event(
        "end", {"status": "COMPLETED", "last_id": "e:39"}, "e:39"
    )
    connections: list[Connection] = [ok()]
    connections[0] = (connections[0][0], [log(1)])
    for _ in range(rand.randrange(1, 6)):
        begin = rand.randrange(1, 39)
        text = b"".join(log(at) for at in range(begin, 40))
        cut = text[: rand.randrange(len(text))]
        # A server goes on behind the last id; one that begins earlier doubles lines.
        connections.append(ok(cut, ConnectionFailed("cut")) if rand.random() < 0.5 else ok(cut))
    connections.append(ok(whole))
    emitted, following, *_ = follow(connections)
    seen = offsets(emitted)
    assert seen == sorted(set(seen))
    assert seen[-1] == 39
    assert following.status == "COMPLETED"
