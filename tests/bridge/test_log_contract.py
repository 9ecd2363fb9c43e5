"""Marks of a log against the contract. Pages and searches are tested where they are read."""

import pytest

from app.bridge.contract.answers import check_answer
from app.bridge.contract.breaches import Breach
from app.errors import BrokenContract
from generated.mindcoordinator.v1.logs_pb2 import GetLogMarksRequest, LogBucket, LogMarks
from generated.mindcoordinator.v1.watch_pb2 import LogRange


def bucket(first: int, last: int, info: int = 0) -> LogBucket:
    return LogBucket(first_offset=first, last_offset=last, info=info)


def check(marks: LogMarks, buckets: int = 3) -> None:
    check_answer("GetLogMarks", "acme", GetLogMarksRequest(job_id="j", buckets=buckets), marks)


@pytest.mark.parametrize(
    "marks",
    [
        LogMarks(epoch="e1"),
        # A run has begun that wrote nothing so far.
        LogMarks(epoch="e1", run_offsets=[1]),
        LogMarks(
            epoch="e1",
            first_offset=3,
            last_offset=9,
            buckets=[bucket(3, 4, 2), bucket(5, 5), bucket(8, 9, 1)],
            run_offsets=[3, 10],
            missing=[LogRange(first=6, last=7)],
        ),
    ],
)
def test_marks_that_keep_it(marks: LogMarks) -> None:
    check(marks)


@pytest.mark.parametrize(
    ("marks", "breach"),
    [
        (LogMarks(epoch=""), Breach.EPOCH),
        (LogMarks(epoch="e1", first_offset=9, last_offset=7), Breach.ORDER),
        (
            LogMarks(epoch="e1", last_offset=9, buckets=[bucket(n, n) for n in range(1, 5)]),
            Breach.PAGE,
        ),
        (LogMarks(epoch="e1", last_offset=9, buckets=[bucket(5, 6), bucket(6, 7)]), Breach.ORDER),
        (LogMarks(epoch="e1", last_offset=9, buckets=[bucket(5, 4)]), Breach.ORDER),
        (LogMarks(epoch="e1", last_offset=9, buckets=[bucket(5, 10)]), Breach.ORDER),
        (LogMarks(epoch="e1", last_offset=9, buckets=[bucket(1, 4, 5)]), Breach.VALUE),
        (LogMarks(epoch="e1", last_offset=9, buckets=[bucket(1, 4, -1)]), Breach.VALUE),
        (LogMarks(epoch="e1", last_offset=9, run_offsets=[5, 5]), Breach.ORDER),
        (LogMarks(epoch="e1", last_offset=9, run_offsets=[11]), Breach.ORDER),
        (LogMarks(epoch="e1", last_offset=5000, run_offsets=range(1, 1002)), Breach.PAGE),
        (
            LogMarks(
                epoch="e1",
                last_offset=9,
                missing=[LogRange(first=4, last=5), LogRange(first=2, last=3)],
            ),
            Breach.ORDER,
        ),
    ],
)
def test_marks_that_break_it(marks: LogMarks, breach: Breach) -> None:
    with pytest.raises(BrokenContract) as refused:
        check(marks)
    assert refused.value.breach == breach
