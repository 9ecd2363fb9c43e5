"""What a coordinator may tell on a stream of states, and what breaks the contract."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from app.bridge.contract.states import MAX_STATE, StatesCheck
from app.errors import BrokenContract
from generated.mindcoordinator.v1.cluster_pb2 import Node
from generated.mindcoordinator.v1.jobs_pb2 import JOB_STATUS_TRAINING
from generated.mindcoordinator.v1.queue_pb2 import GetQueueStatusResponse, QueuedJob
from generated.mindcoordinator.v1.watch_jobs_pb2 import (
    JobChange,
    JobState,
    JobsVersion,
    WatchJobsRequest,
    WatchJobsResponse,
    WatchJobsStart,
)


def job(version: int, job_id: str = "a", **values: object) -> JobChange:
    state = JobState(job_id=job_id, status=JOB_STATUS_TRAINING)
    for name, value in values.items():
        setattr(state, name, value)
    return JobChange(version=version, job=state)


def first(*changes: JobChange, reset: bool = True, **values: object) -> WatchJobsResponse:
    message = WatchJobsResponse(
        start=WatchJobsStart(epoch="s1", reset=reset), changes=changes, synced=9
    )
    for name, value in values.items():
        setattr(message, name, value)
    return message


def check(*messages: WatchJobsResponse, after: JobsVersion | None = None) -> None:
    checked = StatesCheck(WatchJobsRequest(after=after), "acme")
    for message in messages:
        checked.check(message)


def test_what_the_contract_has_passes() -> None:
    check(first(job(0, "old"), job(3), job(3, "b")), WatchJobsResponse(changes=[job(10)]))
    check(
        first(JobChange(version=8, deleted_job_id="x"), reset=False),
        WatchJobsResponse(nodes=[Node(node_id="n")], queue=GetQueueStatusResponse(total_queued=1)),
        after=JobsVersion(epoch="s1", version=7),
    )
    check(first(), after=JobsVersion(epoch="other", version=70))


@pytest.mark.parametrize(
    ("kind", "messages", "after"),
    [
        ("start", [WatchJobsResponse(changes=[job(1)])], None),
        ("start", [first(), first()], None),
        ("start", [first(reset=False)], None),
        ("start", [first(reset=False)], JobsVersion(epoch="s2", version=1)),
        ("epoch", [WatchJobsResponse(start=WatchJobsStart(epoch="S 1", reset=True))], None),
        ("order", [first(job(3), job(2, "b"))], None),
        ("order", [first(job(10))], None),
        ("order", [first(), WatchJobsResponse(changes=[job(9)])], None),
        ("order", [first(), WatchJobsResponse(synced=12)], None),
        ("order", [first(job(5), reset=False)], JobsVersion(epoch="s1", version=6)),
        (
            "identifier",
            [first(JobChange(version=1, job=JobState(status=JOB_STATUS_TRAINING)))],
            None,
        ),
        ("identifier", [first(JobChange(version=1))], None),
        ("identifier", [first(JobChange(version=1, deleted_job_id="a\n"))], None),
        ("identifier", [first(), WatchJobsResponse(nodes=[Node()])], None),
        ("value", [first(JobChange(version=1, job=JobState(job_id="a")))], None),
        ("value", [first(job(1, message="x" * MAX_STATE))], None),
        ("value", [first(job(-1))], None),
        (
            "value",
            [first(JobChange(version=1, job=JobState(job_id="a", created_at=Timestamp(nanos=-1))))],
            None,
        ),
        (
            "tenant",
            [
                first(),
                WatchJobsResponse(
                    queue=GetQueueStatusResponse(
                        queued_jobs=[QueuedJob(job_id="a", tenant_id="rival")]
                    )
                ),
            ],
            None,
        ),
    ],
)
def test_what_breaks_it_is_named(
    kind: str, messages: list[WatchJobsResponse], after: JobsVersion | None
) -> None:
    with pytest.raises(BrokenContract) as caught:
        check(*messages, after=after)
    assert caught.value.breach == kind
