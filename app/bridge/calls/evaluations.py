"""Calls about evaluations."""

from app.bridge.calls.base import Calls
from app.bridge.converters import JsonObject
from app.bridge.partial_jobs import evaluating_job
from app.bridge.requests import (
    Body,
    build_submit_evaluation,
)
from app.caller import Caller
from generated.mindcoordinator.v1.evaluations_pb2 import GetEvaluationRequest


class EvaluationCalls(Calls):
    """Submits and reads evaluations."""

    async def submit_evaluation(
        self, caller: Caller, body: Body, *, idempotency_key: str = ""
    ) -> JsonObject:
        """Queue an evaluation."""
        answer = await self._call(
            "SubmitEvaluation",
            self._stub.SubmitEvaluation,
            caller,
            build_submit_evaluation(body, idempotency_key=idempotency_key),
            deadline=self._settings.submit_timeout,
        )
        self._record_job(caller.tenant_id, evaluating_job(caller, answer))
        return answer

    async def get_evaluation(self, caller: Caller, evaluation_id: str) -> JsonObject:
        """Fetch an evaluation, with its results once it is complete."""
        answer = await self._call(
            "GetEvaluation",
            self._stub.GetEvaluation,
            caller,
            GetEvaluationRequest(evaluation_id=evaluation_id),
        )
        self._record_job(caller.tenant_id, evaluating_job(caller, answer))
        return answer
