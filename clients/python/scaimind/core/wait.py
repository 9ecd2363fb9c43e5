"""Waiting until jobs have ended, by their streams: nothing is polled."""

from collections.abc import Callable, Generator, Sequence
from typing import Any

from scaimind.core.commands import Command, Emit, Receive
from scaimind.core.follow import SILENCE, Following, follow_logs
from scaimind.core.operations import path, query
from scaimind.errors import ScaiMindError


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
    one has. `timeout` is in seconds of `clock`; it is looked at with each piece
    of a stream and each break. Raises `WaitTimeout`.
    """
    deadline = None if timeout is None else clock() + timeout
    statuses: dict[str, str] = {}
    for job_id in job_ids:
        following = Following()
        silence = SILENCE
        if deadline is not None:
            silence = min(SILENCE, max(deadline - clock(), 0.001))
        # Only the end matters: no line of the log is asked for.
        arguments = query(tail=0, level="ERROR")
        steps = follow_logs(
            job_id, arguments, following, path=path("jobs", job_id, "logs"), silence=silence
        )
        yield from _until(steps, deadline, clock, timeout, statuses)
        statuses[job_id] = following.status
    return statuses


def _until(
    steps: Generator[Command, Any, None],
    deadline: float | None,
    clock: Callable[[], float],
    timeout: float | None,
    statuses: dict[str, str],
) -> Generator[Command, Any, None]:
    told: Any = None
    problem: BaseException | None = None
    while True:
        try:
            command = steps.send(told) if problem is None else steps.throw(problem)
        except StopIteration:
            return
        told, problem = None, None
        if isinstance(command, Emit):
            continue
        if deadline is not None and timeout is not None and clock() >= deadline:
            steps.close()
            raise WaitTimeout(timeout, statuses)
        if isinstance(command, Receive) and deadline is not None:
            command = Receive(min(command.timeout, max(deadline - clock(), 0.001)))
        try:
            told = yield command
        except ScaiMindError as error:
            problem = error
