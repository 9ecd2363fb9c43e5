"""The call that changes a job's name and labels."""

from dataclasses import replace

from typing_extensions import override

from app.coordinator.errors import Aborted
from app.coordinator.jobs.messages import job_message
from app.coordinator.jobs.model import JobRecord
from app.coordinator.scheduling.scheduler import Scheduler
from app.coordinator.scheduling.transitions import Transition
from app.coordinator.service.base import Calls
from app.coordinator.service.interceptor import Context, peer_of
from app.coordinator.submission.descriptions import changed_submission
from generated.mindcoordinator.v1 import jobs_pb2
from generated.mindcoordinator.v1.jobs_pb2 import SubmitJobRequest


class UpdateCalls(Calls):
    """Changes jobs in any state."""

    @override
    async def UpdateJob(self, request: jobs_pb2.UpdateJobRequest, context: Context) -> jobs_pb2.Job:
        job = self._job(peer_of(context), request.job_id)
        if request.revision not in (0, job.revision):
            raise Aborted(
                f"the job has revision {job.revision}, not {request.revision}; read it again"
            )
        submission = changed_submission(job, request)
        if (submission.name, submission.labels) == (job.name, job.submission.labels):
            return job_message(job)
        return job_message(self._describe(job, submission))

    def _describe(self, job: JobRecord, submission: SubmitJobRequest) -> JobRecord:
        """Store what a job is submitted with from here on. Raises Overloaded."""
        if job.job_id not in self._scheduler.jobs:
            now = max(self._parts.clock(), job.updated_at)
            job = replace(
                job,
                name=submission.name,
                submission=submission,
                revision=job.revision + 1,
                updated_at=now,
            )
            with self._storing():
                self._controller.redescribe(job)
            return job

        def change(scheduler: Scheduler) -> tuple[Transition, JobRecord]:
            transition = scheduler.describe(job.job_id, submission)
            return transition, transition.newest()[job.job_id]

        described = replace(job, name=submission.name, submission=submission)
        return self._apply(change, also=lambda: self._store.save_submission(described))
