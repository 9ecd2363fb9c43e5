"""Where a log has which levels, against what was asked."""

from collections.abc import Iterable
from typing import Final

from app.bridge.contract.breaches import Breach
from app.bridge.contract.logs import check_epoch, check_extent
from app.errors import BrokenContract
from generated.mindcoordinator.v1.logs_pb2 import GetLogMarksRequest, LogMarks

#: Buckets where no number is asked for.
_DEFAULT_BUCKETS: Final = 400
#: Runs, and ranges of what is missing.
_MOST_PLACES: Final = 1000


def check_marks(request: GetLogMarksRequest, marks: LogMarks) -> None:
    """Check marks whose single fields were checked. Raises `BrokenContract`."""
    check_epoch("epoch", marks.epoch)
    first, last = marks.first_offset, marks.last_offset
    check_extent(first, last)
    if len(marks.buckets) > (request.buckets or _DEFAULT_BUCKETS):
        raise BrokenContract(Breach.PAGE, "there are more buckets than were asked for")
    _check_ranges(
        "buckets", ((each.first_offset, each.last_offset) for each in marks.buckets), first, last
    )
    for each in marks.buckets:
        entries = each.debug + each.info + each.warning + each.error
        if entries > each.last_offset - each.first_offset + 1:
            raise BrokenContract(Breach.VALUE, "buckets: must not count more than they have")
    if max(len(marks.run_offsets), len(marks.missing)) > _MOST_PLACES:
        raise BrokenContract(Breach.PAGE, f"there are more than {_MOST_PLACES} runs or gaps")
    # A run that has begun may have written nothing so far.
    _check_ranges("run_offsets", ((each, each) for each in marks.run_offsets), first, last + 1)
    _check_ranges("missing", ((each.first, each.last) for each in marks.missing), first, last)


def _check_ranges(name: str, ranges: Iterable[tuple[int, int]], first: int, last: int) -> None:
    """Check that ranges of offsets rise within the log."""
    behind = first - 1
    for begin, end in ranges:
        if not behind < begin <= end <= last:
            raise BrokenContract(Breach.ORDER, f"{name}: must rise, within the log")
        behind = end
