"""The calls about evaluations."""

import asyncio
from functools import partial
from pathlib import Path

from typing_extensions import override

from app.coordinator.errors import FailedPrecondition, NotFound
from app.coordinator.evaluations.evaluator.running import RESULTS
from app.coordinator.evaluations.process import FindCheckpoint
from app.coordinator.evaluations.results import BadResults, read_results
from app.coordinator.jobs.messages import status_message, time_message
from app.coordinator.jobs.model import JobRecord
from app.coordinator.jobs.states import Status
from app.coordinator.service.base import Calls
from app.coordinator.service.interceptor import Context, peer_of
from app.coordinator.submission.evaluations import accept_evaluation
from generated.mindcoordinator.v1 import evaluations_pb2
from generated.mindcoordinator.v1.evaluations_pb2 import (
    Evaluation,
)


class EvaluationCalls(Calls):
    """The calls about evaluations."""

    @override
    async def SubmitEvaluation(
        self, request: evaluations_pb2.SubmitEvaluationRequest, context: Context
    ) -> evaluations_pb2.Evaluation:
        peer = peer_of(context)
        job = self._known_key(peer, request.idempotency_key, request)
        if job is None:
            trained = self._job(peer, request.job_id) if request.job_id else None
            accepting = partial(
                accept_evaluation,
                request,
                tenant_id=peer.tenant_id,
                user_id=peer.user_id,
                trained=trained,
                find_checkpoint=self._finder_of(trained, request.checkpoint_id),
                trainers=self._parts.trainers.environment,
                drive=self._parts.drive,
                now=self._parts.clock(),
            )
            accepted = await self._ask_drive(accepting)
            # The same request may have come meanwhile. From here on nothing may come between.
            job = self._known_key(peer, request.idempotency_key, request) or self._submit(
                accepted, request, key=request.idempotency_key
            )
        return await self._evaluation_message(job)

    def _finder_of(self, trained: JobRecord | None, checkpoint_id: str) -> FindCheckpoint:
        """What finds the checkpoint in the drive, in whichever thread; it was looked up before."""
        url, problem = "", None
        if trained is not None and checkpoint_id:
            try:
                url = self._kept_checkpoint_url(trained, checkpoint_id)
            except FailedPrecondition as error:
                problem = error

        def find(trained: JobRecord, _: str) -> str:
            if problem is not None:
                raise problem
            self._check_checkpoint(trained, url)
            return url

        return find

    @override
    async def GetEvaluation(
        self, request: evaluations_pb2.GetEvaluationRequest, context: Context
    ) -> evaluations_pb2.Evaluation:
        peer = peer_of(context)
        job = self._parts.store.job(peer.tenant_id, request.evaluation_id)
        if job is None or job.evaluation is None:
            raise NotFound("the evaluation does not exist")
        return await self._evaluation_message(job)

    async def _evaluation_message(self, job: JobRecord) -> evaluations_pb2.Evaluation:
        output = self._parts.workspace.output(job)
        return await asyncio.to_thread(evaluation_message, job, output)


def evaluation_message(job: JobRecord, output: Path) -> Evaluation:
    """An evaluation in full; its results are read from the job's `output`. Blocks."""
    asked = job.evaluation
    assert asked is not None
    message = Evaluation(
        evaluation_id=job.job_id,
        tenant_id=job.tenant_id,
        job_id=asked.job_id,
        model_uri=asked.model_uri,
        checkpoint_id=asked.checkpoint_id,
        status=status_message(job.status),
        message=job.message,
        error_message=job.error_message,
        benchmarks=asked.benchmarks,
        created_at=time_message(job.created_at),
    )
    if job.started_at:
        message.started_at.CopyFrom(time_message(job.started_at))
    if job.ended_at:
        message.ended_at.CopyFrom(time_message(job.ended_at))
    if job.status is Status.COMPLETED:
        try:
            message.results.extend(read_results(output, RESULTS, asked.benchmarks))
        except BadResults as error:
            message.error_message = f"Its results cannot be read: {error}."
    return message
