"""The calls about evaluations."""

import asyncio

from generated.mindcoordinator.v1 import evaluations_pb2

from .calls import Calls
from .doors import Context, peer_of
from .evaluations import accept_evaluation, evaluation_message
from .records import JobRecord
from .refusals import NotFound


class EvaluationCalls(Calls):
    """See the contract."""

    async def SubmitEvaluation(
        self, request: evaluations_pb2.SubmitEvaluationRequest, context: Context
    ) -> evaluations_pb2.Evaluation:
        """See the contract."""
        peer = peer_of(context)
        known = self._known_key(peer, request.idempotency_key, request)
        job = known or self._submit(
            accept_evaluation(
                request,
                tenant_id=peer.tenant_id,
                user_id=peer.user_id,
                trained=self._job(peer, request.job_id) if request.job_id else None,
                find_checkpoint=self._checkpoint_url,
                drive=self._parts.drive,
                now=self._parts.clock(),
            ),
            request,
            key=request.idempotency_key,
        )
        return await self._evaluation_message(job)

    async def GetEvaluation(
        self, request: evaluations_pb2.GetEvaluationRequest, context: Context
    ) -> evaluations_pb2.Evaluation:
        """See the contract."""
        peer = peer_of(context)
        job = self._parts.store.job(peer.tenant_id, request.evaluation_id)
        if job is None or job.evaluation is None:
            raise NotFound("there is no such evaluation")
        return await self._evaluation_message(job)

    async def _evaluation_message(self, job: JobRecord) -> evaluations_pb2.Evaluation:
        output = self._parts.workspace.output(job)
        return await asyncio.to_thread(evaluation_message, job, output)
