"""A job's log, followed through everything: each line once, and what is missing told.

The follower is a generator of commands (`scaimind.core.commands`). It ends only
when the job has ended and all of its log was delivered; it raises what a new
attempt would not change; everything else it survives.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Final

from scaimind.core.commands import Command, Request
from scaimind.core.cursor import Cursor
from scaimind.core.entries import Gap, LogLine
from scaimind.core.retries import Backoff, call
from scaimind.core.sse import ServerEvent
from scaimind.core.stream import SILENCE, Enough, Link, connect, data_of, taken

_ENDED: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED", "PREEMPTED"})


@dataclass(slots=True)
class Following:
    """Where a follower is; changed by the follower alone."""

    cursor: Cursor | None = None
    #: The job's final status, once it has ended.
    status: str = ""


def follow_logs(
    job_id: str,
    query: tuple[tuple[str, str], ...],
    following: Following,
    *,
    path: str,
    backoff: Backoff | None = None,
    silence: float = SILENCE,
) -> Generator[Command, Any, None]:
    """Emit `LogLine` and `Gap` until the log is complete, or with `follow=false` told.

    `following.cursor` is where to begin; without one, `query` has the `tail`.
    Raises what `scaimind.core.stream.connect` does.
    """
    link = Link(last_id="" if following.cursor is None else str(following.cursor))
    #: The last entry that was delivered, which a repetition would double.
    newest = following.cursor

    def take(event: ServerEvent) -> Iterator[LogLine | Gap]:
        nonlocal newest
        if event.id:
            following.cursor = Cursor.parse(event.id)
        if event.name == "log":
            epoch = following.cursor.epoch if following.cursor is not None else ""
            line = LogLine.of(data_of(event), job_id=job_id, epoch=epoch)
            if newest is None or line.epoch != newest.epoch or line.offset > newest.offset:
                newest = line.cursor
                link.news = True
                yield line
        elif event.name == "gap":
            yield Gap.of(data_of(event), job_id=job_id)
        elif event.name == "end":
            following.status = str(data_of(event).get("status", ""))
            raise Enough

    yield from taken(connect(path, query, link, backoff=backoff, silence=silence), take)
    if link.complete:
        following.status = yield from _final_status(job_id)


def _final_status(job_id: str) -> Generator[Command, Any, str]:
    answer = yield from call(Request("GET", f"/jobs/{job_id}"))
    job = answer.get("data") if isinstance(answer, dict) else None
    return str(job.get("status", "")) if isinstance(job, dict) else ""


def ended(status: str) -> bool:
    """Whether a job in this state has ended."""
    return status in _ENDED
