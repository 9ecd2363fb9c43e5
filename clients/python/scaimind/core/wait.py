"""Waiting until jobs have ended, by their streams: nothing is polled."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from scaimind.core.commands import Command, Open, Pause, Receive
from scaimind.core.events import Event, JobChanged, JobGone, View, follow_events
from scaimind.core.follow import Following, ended, follow_logs
from scaimind.core.operations import path, query
from scaimind.core.stream import Enough, taken
from scaimind.errors import (
    ConnectionFailed,
    JobDeleted,
    NotFound,
    NotSupported,
    ScaiMindError,
)

JOB_NOT_FOUND: Final = "JOB_NOT_FOUND"
#: Jobs that are waited for by one stream: a URL has its limit.
_AT_ONCE: Final = 100
#: Seconds by which a wait may be over too late.
LATE: Final = 1.0


class WaitTimeout(ScaiMindError):
    """The time was over before all jobs had ended. `statuses` has those that had."""

    def __init__(self, seconds: float, statuses: dict[str, str]) -> None:
        super().__init__(f"Not all jobs have ended after {seconds:g} s.")
        self.statuses = statuses


def wait_for_jobs(
    job_ids: Sequence[str], *, timeout: float | None, clock: Callable[[], float]
) -> Generator[Command, Any, dict[str, str]]:
    """Wait until each job has ended; return the final statuses by id, as the ids were given.

    Emits `JobChanged` for each status that does not end a job. `timeout` is in
    seconds of `clock`. Raises `WaitTimeout`, `NotFound` for a job that does not
    exist, `JobDeleted` for one that is deleted meanwhile.
    """
    deadline = None if timeout is None else clock() + timeout
    wanted = list(dict.fromkeys(job_ids))
    statuses: dict[str, str] = {}
    for begin in range(0, len(wanted), _AT_ONCE):
        steps = _wait(wanted[begin : begin + _AT_ONCE], statuses)
        if deadline is None or timeout is None:
            yield from steps
        else:
            yield from _until(deadline, steps, clock, WaitTimeout(timeout, statuses))
    return {job_id: statuses[job_id] for job_id in wanted}


def _wait(job_ids: Sequence[str], statuses: dict[str, str]) -> Generator[Command, Any, None]:
    try:
        yield from _by_states(job_ids, statuses)
    except (NotFound, NotSupported) as error:
        if isinstance(error, JobDeleted) or error.code == JOB_NOT_FOUND:
            raise
        # The gateway is older than the stream over many jobs.
        yield from _by_logs(job_ids, statuses)


def _by_states(job_ids: Sequence[str], statuses: dict[str, str]) -> Generator[Command, Any, None]:
    """Wait by one stream over all jobs' states."""
    seen: dict[str, str] = {}

    def take(event: Event) -> Iterator[JobChanged]:
        if isinstance(event, JobGone):
            kind = NotFound if event.reason == "unknown" else JobDeleted
            what = "does not exist" if event.reason == "unknown" else "was deleted"
            raise kind(f"{event.job_id}: the job {what}.", code=JOB_NOT_FOUND, status=404)
        if not isinstance(event, JobChanged):
            return
        job = event.job
        if ended(job.status):
            statuses[job.job_id] = job.status
            if all(each in statuses for each in job_ids):
                raise Enough
        elif seen.get(job.job_id) != job.status:
            yield event
        seen[job.job_id] = job.status

    return taken(follow_events(query(job_id=job_ids, include="jobs"), View()), take)


def _by_logs(job_ids: Sequence[str], statuses: dict[str, str]) -> Generator[Command, Any, None]:
    """Wait by the jobs' logs, one after the other: all have ended when the last one has."""
    for job_id in job_ids:
        following = Following()
        # Only the end matters: no line of the log is asked for.
        arguments = query(tail=0, level="ERROR")
        steps = follow_logs(job_id, arguments, following, path=path("jobs", job_id, "logs"))
        yield from taken(steps, lambda _: ())
        statuses[job_id] = following.status


def _until(
    deadline: float,
    steps: Generator[Command, Any, None],
    clock: Callable[[], float],
    too_late: WaitTimeout,
) -> Generator[Command, Any, None]:
    """Carry out commands of a follower until a time. Raises `too_late` then.

    A connection waits at most until then, too. One that keepalives have kept
    open longer is made again with what is left of the time.
    """
    told: Any = None
    problem: ScaiMindError | None = None
    silence = 0.0
    while True:
        try:
            command = steps.send(told) if problem is None else steps.throw(problem)
        except StopIteration:
            return
        except ConnectionFailed as error:
            if clock() >= deadline:
                raise too_late from error
            raise
        told, problem = None, None
        left = deadline - clock()
        if left <= 0:
            steps.close()
            raise too_late
        match command:
            case Open(request):
                silence = min(request.timeout, left)
                command = Open(replace(request, timeout=silence))
            case Receive() if silence - left > LATE:
                problem = ConnectionFailed("The time is almost over.")
                continue
            case Pause(seconds):
                command = Pause(min(seconds, left))
        try:
            told = yield command
        except ScaiMindError as error:
            problem = error
