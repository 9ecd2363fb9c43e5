"""Jobs that come as before are checked and converted once."""

from typing import cast

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from app.bridge.contract.fields import check_fields
from app.bridge.contract.remembered import _MOST, remembered
from app.bridge.converters import to_json
from app.errors import BrokenContract
from generated.mindcoordinator.v1.cluster_pb2 import Node
from generated.mindcoordinator.v1.jobs_pb2 import (
    Job,
    JobProgress,
    ListJobsResponse,
    TrainingConfig,
)


def test_equal_jobs_share_what_is_made_of_them() -> None:
    first, again = Job(job_id="a", labels={"k": "v"}), Job(job_id="a", labels={"k": "v"})
    assert to_json(first) is to_json(again)
    page, next_page = (to_json(ListJobsResponse(jobs=[job])) for job in (first, again))
    assert page["jobs"][0] is next_page["jobs"][0]
    assert page["jobs"][0] == to_json(first)


def test_a_job_that_has_changed_is_converted_anew() -> None:
    job = Job(job_id="a", name="before")
    before = to_json(job)
    job.name = "after"
    assert to_json(job)["name"] == "after"
    assert before["name"] == "before"


def test_a_job_that_goes_on_is_converted_but_for_what_was_submitted() -> None:
    job = Job(job_id="a", training_config=TrainingConfig(max_retries=2), progress=JobProgress())
    before = to_json(job)
    job.progress.step += 1
    after = to_json(job)
    assert (before["progress"]["step"], after["progress"]["step"]) == (0, 1)
    assert after["training_config"] is before["training_config"]


def test_only_so_many_are_remembered() -> None:
    seen: list[Message] = []
    call = remembered(seen.append, Job.DESCRIPTOR)
    first, *others = (Job(job_id=str(number)) for number in range(_MOST + 1))
    for job in (first, *others):
        call(job)
    call(others[-1])
    assert len(seen) == _MOST + 1
    call(first)
    assert len(seen) == _MOST + 2


def test_what_is_wrong_with_a_job_is_found_each_time() -> None:
    job = Job(job_id="a" * 5000)
    for _ in range(2):
        with pytest.raises(BrokenContract):
            check_fields(job)
    job = Job(job_id="a\n")
    for _ in range(2):
        with pytest.raises(BrokenContract):
            check_fields(job)


@pytest.mark.parametrize(
    ("message", "calls"), [(Job(name="a"), 1), (Job(name="a" * 5000), 2), (Node(node_id="a"), 2)]
)
def test_long_messages_and_other_types_are_not_remembered(message: Message, calls: int) -> None:
    seen: list[Message] = []
    call = remembered(seen.append, cast(Descriptor, message.DESCRIPTOR))
    call(message)
    call(message)
    assert len(seen) == calls
