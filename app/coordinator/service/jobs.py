"""The calls about jobs: submitting, reading, steering."""

from collections.abc import Mapping
from functools import partial
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from typing_extensions import override

from app.coordinator.errors import (
    FailedPrecondition,
    InvalidArgument,
    Overloaded,
    all_problems,
)
from app.coordinator.identity.access import Access
from app.coordinator.identity.peer import Peer
from app.coordinator.jobs.listing import Filters, Order
from app.coordinator.jobs.messages import checkpoint_message, job_message, status_message
from app.coordinator.jobs.model import JobRecord, Kind
from app.coordinator.jobs.states import RETRYABLE, Status
from app.coordinator.scheduling.rehearsal import rehearse
from app.coordinator.service.base import Calls, page_size
from app.coordinator.service.interceptor import Context, metadata_of, peer_of
from app.coordinator.submission.checks import MAX_NAME
from app.coordinator.submission.outlook import waiting_for, warnings_of
from app.coordinator.submission.resources import run_time_warning, with_run_time
from app.coordinator.submission.training import Accepted, accept, accept_export, accept_retry
from app.coordinator.trainers.asking import TrainerRules
from app.coordinator.trainers.models import uses_trainers
from app.shortening import shortened
from generated.mindcoordinator.v1 import jobs_pb2

_KINDS: Final[Mapping[int, Kind | None]] = {
    jobs_pb2.JOB_KIND_UNSPECIFIED: None,
    jobs_pb2.JOB_KIND_TRAINING: Kind.TRAINING,
    jobs_pb2.JOB_KIND_EVALUATION: Kind.EVALUATION,
}
_MAX_USERS: Final = 64
#: The end of the year 9999.
_LAST_SECOND: Final = 253_402_300_799
#: Labels that can be asked for at once; each is a part of the database's query.
_MAX_LABELS: Final = 64


class JobCalls(Calls):
    """The calls about jobs."""

    @override
    async def SubmitJob(
        self, request: jobs_pb2.SubmitJobRequest, context: Context
    ) -> jobs_pb2.SubmitJobResponse:
        peer = peer_of(context)
        access = await self._parts.admission.admit(peer, metadata_of(context))
        trainers = await self._trainer_rules(request)
        accepting = partial(self._accepted, request, peer, access, trainers)
        if request.validate_only:
            return self._checked(request, await self._ask_drive(accepting))
        warnings: tuple[str, ...] = ()
        if (job := self._known_key(peer, request.idempotency_key, request)) is None:
            accepted = await self._ask_drive(accepting)
            # The same request may have come meanwhile. From here on nothing may come between.
            job = self._known_key(peer, request.idempotency_key, request)
            if job is None:
                warnings = accepted.warnings
                job = self._take_up(accepted, request, key=request.idempotency_key)
                warnings += run_time_warning(job, request.scheduling_config)
        return jobs_pb2.SubmitJobResponse(
            job_id=job.job_id,
            status=status_message(job.status),
            message=" ".join((job.message, *warnings)),
            estimated_wait_seconds=self._wait_of(job),
        )

    async def _trainer_rules(self, request: jobs_pb2.SubmitJobRequest) -> TrainerRules | None:
        """What a submission is checked by that no script carries out; None of any other."""
        if not uses_trainers(request.training_config):
            return None
        return await self._parts.trainers.rules()

    def _accepted(
        self,
        request: jobs_pb2.SubmitJobRequest,
        peer: Peer,
        access: Access,
        trainers: TrainerRules | None,
    ) -> Accepted:
        """The job of a submission; may run in a thread. Raises RequestError."""
        return accept(
            request,
            access=access,
            user_id=peer.user_id,
            drive=self._parts.drive,
            packages=self._parts.packages,
            trainers=trainers,
            cluster=self._scheduler.cluster,
            now=self._parts.clock(),
        )

    def _checked(
        self, request: jobs_pb2.SubmitJobRequest, accepted: Accepted
    ) -> jobs_pb2.SubmitJobResponse:
        """What would become of a job (AIP-163); it is not taken up. Raises RequestError."""
        self._check_takes_job(accepted.job)
        job = with_run_time(accepted.job, self._scheduler.rules)
        rehearsal = rehearse(self._scheduler, job)
        cluster = self._scheduler.cluster
        return jobs_pb2.SubmitJobResponse(
            status=status_message(rehearsal.job.status),
            message=rehearsal.job.message,
            estimated_wait_seconds=rehearsal.wait,
            check=jobs_pb2.SubmissionCheck(
                would_start=rehearsal.starts,
                waiting_for=waiting_for(rehearsal, cluster),
                warnings=[
                    *accepted.warnings,
                    *run_time_warning(job, request.scheduling_config),
                    *warnings_of(request, cluster, now=self._parts.clock()),
                ],
            ),
        )

    @override
    async def GetJob(self, request: jobs_pb2.GetJobRequest, context: Context) -> jobs_pb2.Job:
        return job_message(self._job(peer_of(context), request.job_id))

    @override
    async def ListJobs(
        self, request: jobs_pb2.ListJobsRequest, context: Context
    ) -> jobs_pb2.ListJobsResponse:
        peer = peer_of(context)
        statuses = []
        with all_problems() as problems:
            for number in request.statuses:
                try:
                    statuses.append(Status(number))
                except ValueError:
                    problems.add("statuses", f"{number} is not a job status")
            if len(request.label_filter) > _MAX_LABELS:
                problems.add("label_filter", f"must have at most {_MAX_LABELS} labels")
            with problems.collected():
                order = Order.parse(request.order_by)
            with problems.collected():
                size = page_size(request.page_size)
            if len(request.user_ids) > _MAX_USERS:
                problems.add("user_ids", f"must have at most {_MAX_USERS} users")
            if len(request.name_contains) > MAX_NAME:
                problems.add("name_contains", f"must have at most {MAX_NAME} characters")
            if len(request.parent_job_id) > MAX_NAME:
                problems.add("parent_job_id", f"must have at most {MAX_NAME} characters")
        page = await self._parts.lister.page(
            peer.tenant_id,
            filters=Filters(
                statuses=sorted(set(statuses)),
                labels=dict(request.label_filter),
                name=request.name_contains,
                users=list(request.user_ids),
                created_after=_microseconds(request.created_after),
                kind=_KINDS[request.kind],
                parent=request.parent_job_id,
            ),
            order=order,
            page_size=size,
            page_token=request.page_token,
        )
        return jobs_pb2.ListJobsResponse(
            jobs=[job_message(job) for job in page.jobs],
            next_page_token=page.next_page_token,
            total_count=page.total_count,
        )

    @override
    async def CancelJob(self, request: jobs_pb2.CancelJobRequest, context: Context) -> jobs_pb2.Job:
        peer = peer_of(context)
        job = self._unended(peer, request.job_id, "cancelled")
        reason = shortened(request.reason, 1000)
        job = self._change(job, lambda scheduler: scheduler.cancel(request.job_id, reason))
        return job_message(job)

    @override
    async def PauseJob(self, request: jobs_pb2.PauseJobRequest, context: Context) -> jobs_pb2.Job:
        peer = peer_of(context)
        job = self._unended(peer, request.job_id, "paused")
        saves = request.save_checkpoint
        job = self._change(
            job, lambda scheduler: scheduler.pause(request.job_id, save_checkpoint=saves)
        )
        return job_message(job)

    @override
    async def ResumeJob(self, request: jobs_pb2.ResumeJobRequest, context: Context) -> jobs_pb2.Job:
        peer = peer_of(context)
        job = self._unended(peer, request.job_id, "resumed")
        checkpoint_id = request.checkpoint_id
        if not checkpoint_id and job.checkpoints:
            checkpoint_id = job.checkpoints[-1].checkpoint_id
        resume_from = job.resume_from
        if checkpoint_id:
            resume_from = await self._checkpoint_url(job, checkpoint_id)
            job = self._unended(peer, request.job_id, "resumed")
        job = self._change(
            job,
            lambda scheduler: scheduler.resume(
                request.job_id, checkpoint_id=checkpoint_id, resume_from=resume_from
            ),
        )
        return job_message(job)

    @override
    async def RetryJob(self, request: jobs_pb2.RetryJobRequest, context: Context) -> jobs_pb2.Job:
        peer = peer_of(context)
        known = self._known_key(peer, request.idempotency_key, request)
        if known is not None:
            return job_message(known)
        job = self._job(peer, request.job_id)
        if job.status not in RETRYABLE:
            raise FailedPrecondition(
                f"the job is {job.status.name}, and only a FAILED or PREEMPTED job can be retried"
            )
        if request.modify_resources and not request.HasField("new_resource_config"):
            raise InvalidArgument("new_resource_config", "is required with modify_resources")
        if job.artefacts_of and not request.checkpoint_id and not request.modify_resources:
            again = accept_export(
                job, user_id=peer.user_id, secrets=self._secrets_of(job), now=self._parts.clock()
            )
            return job_message(self._take_up(again, request, key=request.idempotency_key))
        resume_from = await self._retry_from(job, request.checkpoint_id)
        # The same request may have come meanwhile, and the job may have been deleted.
        known = self._known_key(peer, request.idempotency_key, request)
        if known is not None:
            return job_message(known)
        child = accept_retry(
            self._job(peer, request.job_id),
            resources=request.new_resource_config if request.modify_resources else None,
            resume_from=resume_from,
            user_id=peer.user_id,
            cluster=self._scheduler.cluster,
            secrets=self._secrets_of(job),
            now=self._parts.clock(),
        )
        return job_message(self._take_up(child, request, key=request.idempotency_key))

    @override
    async def ListCheckpoints(
        self, request: jobs_pb2.ListCheckpointsRequest, context: Context
    ) -> jobs_pb2.ListCheckpointsResponse:
        job = self._job(peer_of(context), request.job_id)
        page = self._store.list_checkpoints(
            job.job_id,
            page_size=page_size(request.page_size),
            page_token=request.page_token,
        )
        return jobs_pb2.ListCheckpointsResponse(
            checkpoints=[checkpoint_message(job, each) for each in page.checkpoints],
            next_page_token=page.next_page_token,
            total_count=page.total_count,
        )

    async def _retry_from(self, job: JobRecord, checkpoint_id: str) -> str:
        """Where a retry of the job begins; empty is the beginning. Raises FailedPrecondition."""
        if checkpoint_id:
            return await self._checkpoint_url(job, checkpoint_id)
        if job.status is Status.PREEMPTED and job.checkpoints:
            return await self._checkpoint_url(job, job.checkpoints[-1].checkpoint_id)
        # What a failed job wrote may be why it failed.
        return job.submission.training_config.resume_from_checkpoint

    def _take_up(
        self,
        accepted: Accepted,
        request: jobs_pb2.SubmitJobRequest | jobs_pb2.RetryJobRequest,
        *,
        key: str = "",
    ) -> JobRecord:
        return self._submit(accepted.job, request, key=key, secrets=accepted.secrets)

    def _secrets_of(self, job: JobRecord) -> dict[str, str]:
        """What is masked in a job's submission. Raises Overloaded."""
        try:
            return self._parts.secrets.of(job.job_id)
        except OSError as error:
            raise Overloaded(f"the job's variables cannot be read: {error.strerror}") from None


def _microseconds(time: Timestamp) -> int:
    """A moment that a caller names, within what the store can compare."""
    return min(max(time.seconds, 0), _LAST_SECOND) * 1_000_000 + time.nanos // 1000
