"""What callers read and what is logged of texts of real products, one test for each."""

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata
from structlog.testing import capture_logs

from app.bridge.errors import to_api_error
from app.bridge.sent import Asked
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest
from tests.bridge.sample_texts import Honest, Leak, honest, leaks

#: The first was written before the rules; each other one after them, and not by them.
SETS = ("first", "second", "third", "fourth")
LEAKS = [
    pytest.param(each, id=f"{name}-{at}") for name in SETS for at, each in enumerate(leaks(name))
]
HONEST = [
    pytest.param(each, id=f"{name}-{at}") for name in SETS for at, each in enumerate(honest(name))
]


def told(status: StatusCode, detail: str, *, sent: str = "") -> tuple[str, str]:
    """What the caller reads, and what is logged, of a submission's refusal."""
    error = AioRpcError(status, Metadata(), Metadata(), details=detail)
    with capture_logs() as logs:
        refused = to_api_error(error, method="SubmitJob", asked=Asked(SubmitJobRequest(name=sent)))
    return refused.message, "".join(entry["detail"] for entry in logs)


@pytest.mark.parametrize("leak", LEAKS)
def test_what_leaks_is_hidden(leak: Leak) -> None:
    shown, logged = told(leak.status, leak.detail)
    assert leak.hidden not in shown
    if leak.is_credential:
        assert leak.hidden not in logged


@pytest.mark.parametrize("text", HONEST)
def test_what_is_honest_is_shown_as_it_is(text: Honest) -> None:
    shown, _ = told(text.status, text.detail, sent=text.sent)
    assert shown == text.detail
