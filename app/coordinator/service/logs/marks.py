"""Where a job's log has which levels: GetLogMarks."""

from collections.abc import Sequence
from typing import Final

from app.coordinator.errors import FailedPrecondition, InvalidArgument
from app.coordinator.logs.marks import log_marks
from app.coordinator.storage.job_directory import JobDir
from app.coordinator.storage.journal_counts import IndexLost
from generated.mindcoordinator.v1.logs_pb2 import GetLogMarksRequest, LogMarks

_DEFAULT_BUCKETS: Final = 400
_MAX_BUCKETS: Final = 2000


def get_log_marks(
    directory: JobDir, request: GetLogMarksRequest, *, known_lost: Sequence[tuple[int, int]]
) -> LogMarks:
    """The marks of a job's log. Blocks. Raises RequestError, OSError."""
    if not 0 <= request.buckets <= _MAX_BUCKETS:
        raise InvalidArgument("buckets", f"must be from 0 to {_MAX_BUCKETS}")
    try:
        return log_marks(
            directory, buckets=request.buckets or _DEFAULT_BUCKETS, known_lost=known_lost
        )
    except IndexLost:
        raise FailedPrecondition(
            "the index of the job's log is lost or damaged: the log can be read and searched, but"
            " not summarized"
        ) from None
