"""Pages of a job's log: ListJobLogs.

A page is read in a thread: a rare level, or a filter, makes it look at many
places. RE2 and reads of the disk let the event loop go on meanwhile.
"""

from typing import Final

from app.coordinator.errors import FailedPrecondition, Problems, all_problems
from app.coordinator.logs.log import LogReader
from app.coordinator.logs.pages import Bounds, ReadPage, read_backward, read_forward
from app.coordinator.service.logs.filters import filter_of
from app.coordinator.storage.job_directory import JobDir
from app.log_filter import LogFilter
from generated.mindcoordinator.v1.watch_pb2 import ListJobLogsRequest, ListJobLogsResponse

_DEFAULT_PAGE: Final = 1000
_MAX_PAGE: Final = 10_000
_PAGE_BYTES: Final = 1024 * 1024


def list_logs(
    directory: JobDir, request: ListJobLogsRequest, *, ended: bool
) -> ListJobLogsResponse:
    """A page of a job's log. Blocks. Raises RequestError, OSError."""
    condition = LogFilter()
    with all_problems() as problems:
        _check_numbers(request, problems)
        with problems.collected():
            condition = filter_of(request.filter, min_level=request.min_level)
    with LogReader(directory.log) as log:
        last = log.last_offset()
        page = _read(log, request, condition, last)
        return ListJobLogsResponse(
            epoch=log.epoch,
            entries=page.entries,
            next_after_offset=page.last,
            next_before_offset=page.first if request.before_offset else 0,
            first_offset=min(last, 1),
            last_offset=last,
            complete=ended,
            missing=page.missing,
        )


def _check_numbers(request: ListJobLogsRequest, problems: Problems) -> None:
    if request.page_size < 0 or request.page_size > _MAX_PAGE:
        problems.add("page_size", f"must be from 0 to {_MAX_PAGE}")
    for name in ("tail", "through_offset", "before_offset"):
        if getattr(request, name) < 0:
            problems.add(name, "must be 0 or more")
    if request.after.offset < 0:
        problems.add("after.offset", "must be 0 or more")
    if request.before_offset and (request.HasField("after") or request.tail):
        problems.add("before_offset", "cannot be combined with after or tail; leave one out")


def _read(log: LogReader, request: ListJobLogsRequest, condition: LogFilter, last: int) -> ReadPage:
    """Raises FailedPrecondition."""
    through = min(request.through_offset or last, last)
    bounds = Bounds(entries=request.page_size or _DEFAULT_PAGE, size_bytes=_PAGE_BYTES)
    if request.before_offset:
        before = min(request.before_offset, through + 1)
        return read_backward(log, before, condition=condition, bounds=bounds)
    if request.HasField("after"):
        if request.after.epoch != log.epoch:
            raise FailedPrecondition(
                "after.epoch: is not the epoch of this log; read from the start, or a tail"
            )
        start = log.locate(min(request.after.offset, last))
    else:
        start = log.tail(request.tail, min_level=condition.min_level, through=through)
    return read_forward(log, start, condition=condition, through=through, bounds=bounds)
