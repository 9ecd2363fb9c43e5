"""Waiting until jobs have ended, by their streams: nothing is polled."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any, Final

from scaimind.core.commands import Command, Open, Pause, Receive
from scaimind.core.follow import Following, follow_logs
from scaimind.core.operations import path, query
from scaimind.errors import ConnectionFailed, ScaiMindError

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
    """Wait until each job has ended; return the final statuses by id.

    One job after the other, over one connection: all have ended when the last
    one has. `timeout` is in seconds of `clock`. Raises `WaitTimeout`.
    """
    deadline = None if timeout is None else clock() + timeout
    statuses: dict[str, str] = {}
    for job_id in job_ids:
        following = Following()
        # Only the end matters: no line of the log is asked for.
        arguments = query(tail=0, level="ERROR")
        steps = follow_logs(job_id, arguments, following, path=path("jobs", job_id, "logs"))
        if deadline is None or timeout is None:
            yield from steps
        else:
            yield from _until(deadline, steps, clock, WaitTimeout(timeout, statuses))
        statuses[job_id] = following.status
    return statuses


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
