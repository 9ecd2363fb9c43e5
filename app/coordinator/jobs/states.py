"""The thirteen states of a job, and the moves between them: the one table of a job's life."""

from enum import IntEnum
from typing import Final


class Status(IntEnum):
    """A job's state. Numbers are those of `mindcoordinator.v1.JobStatus`."""

    PENDING = 1
    QUEUED = 2
    SCHEDULING = 3
    PREPARING = 4
    TRAINING = 5
    CHECKPOINTING = 6
    PAUSED = 7
    EVALUATING = 8
    EXPORTING = 9
    COMPLETED = 10
    FAILED = 11
    CANCELLED = 12
    PREEMPTED = 13


_S = Status

#: From each state, the states that a job may move to.
MOVES: Final[dict[Status, frozenset[Status]]] = {
    # `not_before` has come, or was never given.
    _S.PENDING: frozenset({_S.QUEUED, _S.CANCELLED}),
    _S.QUEUED: frozenset({_S.SCHEDULING, _S.CANCELLED}),
    # Back to the queue: the run was taken back before it began.
    _S.SCHEDULING: frozenset({_S.PREPARING, _S.QUEUED, _S.PAUSED, _S.FAILED, _S.CANCELLED}),
    _S.PREPARING: frozenset(
        {
            _S.TRAINING,
            _S.EVALUATING,
            # It only exports what another job made.
            _S.EXPORTING,
            _S.QUEUED,
            _S.PAUSED,
            _S.FAILED,
            _S.CANCELLED,
        }
    ),
    # Back to the queue: the coordinator stops, or a transient failure is retried.
    _S.TRAINING: frozenset(
        {
            _S.CHECKPOINTING,
            _S.PAUSED,
            _S.EXPORTING,
            _S.QUEUED,
            _S.FAILED,
            _S.CANCELLED,
            _S.PREEMPTED,
        }
    ),
    # To EXPORTING: it had finished before the request to leave reached it.
    _S.CHECKPOINTING: frozenset(
        {_S.PAUSED, _S.PREEMPTED, _S.QUEUED, _S.EXPORTING, _S.FAILED, _S.CANCELLED}
    ),
    _S.PAUSED: frozenset({_S.QUEUED, _S.CANCELLED}),
    _S.EVALUATING: frozenset(
        {_S.EXPORTING, _S.PAUSED, _S.QUEUED, _S.FAILED, _S.CANCELLED, _S.PREEMPTED}
    ),
    _S.EXPORTING: frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.PREEMPTED: frozenset(),
}

#: States that end a run for good.
TERMINAL: Final = frozenset(status for status, table in MOVES.items() if not table)
#: States that wait for their turn or for resources.
WAITING: Final = frozenset({_S.PENDING, _S.QUEUED})
#: States that hold resources on nodes.
HOLDING: Final = frozenset(
    {
        _S.SCHEDULING,
        _S.PREPARING,
        _S.TRAINING,
        _S.CHECKPOINTING,
        _S.EVALUATING,
        _S.EXPORTING,
    }
)
#: States in which a training process may exist.
RUNNING: Final = frozenset({_S.TRAINING, _S.CHECKPOINTING, _S.EVALUATING})
RETRYABLE: Final = frozenset({_S.FAILED, _S.PREEMPTED})


class IllegalMove(Exception):
    """A move that the table does not have: a defect of the coordinator, never a caller's fault."""


def check_move(before: Status, after: Status) -> None:
    """Raise IllegalMove unless a job may go from `before` to `after`."""
    if after not in MOVES[before]:
        raise IllegalMove(f"a job cannot change from {before.name} to {after.name}")
