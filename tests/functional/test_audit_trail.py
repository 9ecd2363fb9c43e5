"""The audit trail and traces as the processes of a whole stack really write them."""

import json
import urllib.error
import urllib.request
from typing import Any

from tests.functional.stack import PATIENCE, Stack
from tests.functional.test_identity import SUBMISSION, log_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def post(stack: Stack, path: str, body: Any, **headers: str) -> int:
    """Make a request as the first key's owner, unless the headers say otherwise."""
    request = urllib.request.Request(
        f"{stack.url}/v1/modules/scaimind{path}",
        data=json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {stack.key}",
            "Content-Type": "application/json",
            "traceparent": f"00-{TRACE}-{SPAN}-01",
            **headers,
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def audited(stack: Stack, name: str, request_id: str) -> dict[str, Any]:
    """The one audit event of a request."""
    (event,) = (
        line
        for line in log_of(stack, name)
        if line["event"] == "audit" and line.get("request_id") == request_id
    )
    return event


def test_a_submission_is_found_in_both_logs(stack: Stack) -> None:
    assert post(stack, "/jobs", SUBMISSION, **{"X-Request-ID": "audit-1"}) == 201
    event = audited(stack, "gateway", "audit-1")
    assert (event["action"], event["outcome"], event["actor"]) == ("job.submit", "ok", "user")
    assert (event["tenant_id"], event["user_id"]) == ("local", "admin")
    assert event["credential_id"].startswith("key_")
    assert event["trace_id"] == TRACE
    job_id = event["target_id"]
    lines = [line for line in log_of(stack, "coordinator") if line.get("job_id") == job_id]
    assert TRACE in [line.get("trace_id") for line in lines]
    assert "audit-1" in [line.get("request_id") for line in lines]
    stack.await_status(job_id, "COMPLETED", "FAILED")


def test_a_refused_attempt_is_in_the_log_with_its_code(stack: Stack) -> None:
    assert post(stack, "/jobs", {}, **{"X-Request-ID": "audit-2"}) == 422
    event = audited(stack, "gateway", "audit-2")
    assert (event["outcome"], event["target_id"]) == ("VALIDATION_ERROR", None)
    nobody = {"Authorization": "", "X-Request-ID": "audit-3"}
    assert post(stack, "/jobs/job-1/cancel", {}, **nobody) == 401
    event = audited(stack, "gateway", "audit-3")
    assert (event["outcome"], event["credential_id"]) == ("AUTH_TOKEN_MISSING", None)
    assert (event["target_type"], event["target_id"]) == ("job", "job-1")


def test_a_drained_node_is_in_both_logs(stack: Stack) -> None:
    path = "/cluster/nodes/local"
    assert post(stack, f"{path}/drain", {"reason": "a-fan"}, **{"X-Request-ID": "audit-4"}) == 200
    assert post(stack, f"{path}/enable", {}, **{"X-Request-ID": "audit-5"}) == 200
    for name in ("gateway", "coordinator"):
        drained = audited(stack, name, "audit-4")
        assert (drained["action"], drained["target_id"]) == ("node.drain", "local")
        assert (drained["tenant_id"], drained["user_id"]) == ("local", "admin")
        assert "a-fan" not in str(drained)
        assert audited(stack, name, "audit-5")["action"] == "node.enable"
