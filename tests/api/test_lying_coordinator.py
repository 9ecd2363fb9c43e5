"""A coordinator that lies in its answers: no lie is a fault of the gateway's, or outlives it."""

import random

import pytest
from structlog.testing import capture_logs

from tests.api.conftest import Gateway
from tests.api.endpoints import ENDPOINTS, PREFIX, Endpoint
from tests.lies import places, say, values
from tests.scripted_coordinator import SERVICE

#: Lies about each endpoint's answer: drawn by lot, always the same.
LIES = 60


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
async def test_a_lie_is_the_coordinators_fault_or_an_answer(
    gateway: Gateway, endpoint: Endpoint
) -> None:
    answer_type = SERVICE.methods_by_name[endpoint.rpc].output_type
    said = [
        (place, value)
        for place in places(endpoint.rpc, answer_type)
        for value in values(place.way[-1])
    ]
    with capture_logs() as told:
        for place, value in random.Random(str(endpoint)).sample(said, min(LIES, len(said))):
            answer = type(endpoint.response)()
            answer.CopyFrom(endpoint.response)
            say(answer, place, value)
            gateway.coordinator.answer(endpoint.rpc, answer)

            response = await gateway.exchange(endpoint)

            if response.status == endpoint.status:
                assert response.json.keys() == {"data"}
            else:
                assert (response.status, response.error["code"]) == (500, "COORDINATOR_ERROR")
        # What the job cache has kept of it is served, or is not there.
        gateway.coordinator.answer(endpoint.rpc, endpoint.response)
        await gateway.coordinator.stop()
        for path in ("/jobs", "/jobs/job-1", "/evaluations", "/summary"):
            stale = await gateway.ask(
                "GET", PREFIX + path, headers={"Cache-Control": "stale-if-error=600"}
            )
            assert stale.status in (200, 503), stale.body
    assert [entry for entry in told if entry.get("exc_info")] == []
    assert "INTERNAL_ERROR" not in str(told)
    assert "crashed" not in str(told)
