"""Answers of which one field is a lie: each is refused, or is what the API's document says."""

from typing import Any

import orjson
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # no stubs

from app.bridge.contract.answers import check_answer
from app.bridge.converters import to_json
from app.bridge.json_schema import answer_of, schemas_of
from app.errors import BrokenContract
from generated.mindcoordinator.v1 import cluster_pb2, jobs_pb2, queue_pb2
from tests.bridge.calls import CALLS, Call
from tests.lies import Place, places, say, values
from tests.scripted_coordinator import SERVICE, least_answer

TENANT = "acme"


def honest(call: Call) -> Any:
    """An answer that keeps the contract, with an entry in each list of the first level."""
    answer: Any = least_answer(SERVICE.methods_by_name[call.method], call.request)
    match answer:
        case jobs_pb2.ListJobsResponse():
            job = answer.jobs.add(
                job_id="j", tenant_id=TENANT, status=jobs_pb2.JOB_STATUS_TRAINING, revision=3
            )
            job.updated_at.CopyFrom(Timestamp(seconds=1))
        case jobs_pb2.ListCheckpointsResponse():
            answer.checkpoints.add(checkpoint_id="c")
        case cluster_pb2.ListNodesResponse():
            answer.nodes.add(node_id="n")
        case queue_pb2.GetQueueStatusResponse():
            answer.queued_jobs.add(job_id="j", tenant_id=TENANT, queue_name="q")
    return answer


def validator(method: str) -> Draft202012Validator:
    name = answer_of(method)
    definitions = schemas_of(name, reference="#/$defs/")
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": definitions})


def lies(call: Call) -> list[tuple[Place, Any]]:
    return [
        (place, value)
        for place in places(call.method, SERVICE.methods_by_name[call.method].output_type)
        for value in values(place.way[-1])
    ]


def is_refused(call: Call, answer: Any) -> bool:
    try:
        check_answer(call.method, TENANT, call.request, answer)
    except BrokenContract:
        return True
    return False


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.method)
def test_a_lie_is_refused_or_is_an_answer_of_the_document(call: Call) -> None:
    valid = validator(call.method)
    outcomes = {"refused": 0, "passed": 0}
    for place, value in lies(call):
        answer = honest(call)
        say(answer, place, value)
        if is_refused(call, answer):
            outcomes["refused"] += 1
            continue
        outcomes["passed"] += 1
        told = to_json(answer)
        assert list(valid.iter_errors(told)) == [], (place, value)
        assert orjson.loads(orjson.dumps(told)) == told
        assert told.get("tenant_id", "") in ("", TENANT)
    assert all(outcomes.values())


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.method)
def test_an_honest_answer_passes(call: Call) -> None:
    answer = honest(call)
    check_answer(call.method, TENANT, call.request, answer)
    assert list(validator(call.method).iter_errors(to_json(answer))) == []
