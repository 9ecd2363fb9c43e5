"""Calls about jobs."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial

from app.bridge.calls.base import Calls
from app.bridge.converters import JsonObject, to_json
from app.bridge.partial_jobs import submitted_job
from app.bridge.requests import (
    Body,
    build_list_jobs,
    build_retry_job,
    build_submit_job,
    build_update_job,
)
from app.caller import Caller, DownstreamTokens
from generated.mindcoordinator.v1.jobs_pb2 import (
    CancelJobRequest,
    DeleteJobRequest,
    GetJobRequest,
    Job,
    ListCheckpointsRequest,
    PauseJobRequest,
    ResumeJobRequest,
)


class FetchedJob:
    """A job as the coordinator returned it, converted when that is first needed."""

    __slots__ = ("_json", "_message", "_record")

    def __init__(self, message: Job, *, record: Callable[[JsonObject], None]) -> None:
        """`record` is told of the converted job."""
        self._message = message
        self._record = record
        self._json: JsonObject | None = None

    @property
    def revision(self) -> int:
        """Its revision; 0 if its coordinator counts none."""
        return self._message.revision

    def json(self) -> JsonObject:
        """Return the job, JSON-ready. It must not be changed."""
        if self._json is None:
            self._json = to_json(self._message)
            self._record(self._json)
        return self._json


class JobCalls(Calls):
    """Submits, reads and changes jobs."""

    async def submit_job(
        self,
        caller: Caller,
        body: Body,
        *,
        tokens: DownstreamTokens | None = None,
        idempotency_key: str = "",
    ) -> JsonObject:
        """Queue a training job."""
        request = build_submit_job(body, idempotency_key=idempotency_key)
        answer = await self._call(
            "SubmitJob",
            self._stub.SubmitJob,
            caller,
            request,
            tokens=tokens,
            deadline=self._settings.submit_timeout,
        )
        self._record_job(caller.tenant_id, submitted_job(caller, request, answer))
        return answer

    async def check_submission(
        self, caller: Caller, body: Body, *, tokens: DownstreamTokens | None = None
    ) -> JsonObject:
        """Check a training job without queueing it, and return what would become of it.

        Only for a coordinator with the feature `validate_only`: another one queues
        the job.
        """
        answer = await self._call(
            "SubmitJob",
            self._stub.SubmitJob,
            caller,
            build_submit_job(body, validate_only=True),
            tokens=tokens,
            deadline=self._settings.submit_timeout,
        )
        check: JsonObject = answer["check"]
        return {**check, "estimated_wait_seconds": answer["estimated_wait_seconds"]}

    async def get_job(self, caller: Caller, job_id: str) -> JsonObject:
        """Fetch a job's full state."""
        return (await self.fetch_job(caller, job_id)).json()

    async def fetch_job(self, caller: Caller, job_id: str) -> FetchedJob:
        """Fetch a job's full state, to be converted if it is needed."""
        message = await self._ask("GetJob", self._stub.GetJob, caller, GetJobRequest(job_id=job_id))
        return FetchedJob(message, record=partial(self._record_job, caller.tenant_id))

    async def list_jobs(
        self,
        caller: Caller,
        *,
        statuses: Iterable[str] = (),
        page_size: int = 20,
        page_token: str = "",
        order_by: str = "",
        label_filter: Mapping[str, str] | None = None,
        name_contains: str = "",
        user_ids: Iterable[str] = (),
        created_after: datetime | None = None,
        kind: str = "",
        parent_job_id: str = "",
    ) -> JsonObject:
        """Fetch a page of the tenant's jobs.

        The last four but one are for coordinators with the feature `job_filters`, the last
        is for those with `parent_filter`.
        """
        answer = await self._call(
            "ListJobs",
            self._stub.ListJobs,
            caller,
            build_list_jobs(
                statuses=statuses,
                page_size=page_size,
                page_token=page_token,
                order_by=order_by,
                label_filter=label_filter,
                name_contains=name_contains,
                user_ids=user_ids,
                created_after=created_after,
                kind=kind,
                parent_job_id=parent_job_id,
            ),
        )
        for job in answer["jobs"]:
            self._record_job(caller.tenant_id, job)
        return answer

    async def cancel_job(self, caller: Caller, job_id: str, *, reason: str = "") -> JsonObject:
        """End a job that has not ended."""
        return await self._job(
            "CancelJob",
            self._stub.CancelJob,
            caller,
            CancelJobRequest(job_id=job_id, reason=reason),
        )

    async def pause_job(
        self, caller: Caller, job_id: str, *, save_checkpoint: bool = True
    ) -> JsonObject:
        """Stop a running job so that it can be resumed."""
        return await self._job(
            "PauseJob",
            self._stub.PauseJob,
            caller,
            PauseJobRequest(job_id=job_id, save_checkpoint=save_checkpoint),
        )

    async def resume_job(
        self, caller: Caller, job_id: str, *, checkpoint_id: str = ""
    ) -> JsonObject:
        """Put a paused job back to work, from the newest checkpoint unless one is named."""
        return await self._job(
            "ResumeJob",
            self._stub.ResumeJob,
            caller,
            ResumeJobRequest(job_id=job_id, checkpoint_id=checkpoint_id),
        )

    async def retry_job(
        self,
        caller: Caller,
        job_id: str,
        *,
        checkpoint_id: str = "",
        modify_resources: bool = False,
        new_resource_config: Body | None = None,
        idempotency_key: str = "",
    ) -> JsonObject:
        """Make a child job of a failed or preempted one, and return the child."""
        return await self._job(
            "RetryJob",
            self._stub.RetryJob,
            caller,
            build_retry_job(
                job_id,
                checkpoint_id=checkpoint_id,
                modify_resources=modify_resources,
                new_resource_config=new_resource_config,
                idempotency_key=idempotency_key,
            ),
        )

    async def update_job(
        self, caller: Caller, job_id: str, changes: Body, *, revision: int = 0
    ) -> JsonObject:
        """Change a job's `name` and `labels`: those that `changes` has.

        A label whose value is None is removed; labels of None are all removed.
        Revision 0 means whichever the job has.
        """
        return await self._job(
            "UpdateJob",
            self._stub.UpdateJob,
            caller,
            build_update_job(job_id, changes, revision=revision),
        )

    async def delete_job(self, caller: Caller, job_id: str) -> JsonObject:
        """Delete a job that has ended, and what is kept of it."""
        return await self._call(
            "DeleteJob", self._stub.DeleteJob, caller, DeleteJobRequest(job_id=job_id)
        )

    async def list_checkpoints(
        self, caller: Caller, job_id: str, *, page_size: int = 20, page_token: str = ""
    ) -> JsonObject:
        """Fetch a page of a job's checkpoints, the newest first."""
        return await self._call(
            "ListCheckpoints",
            self._stub.ListCheckpoints,
            caller,
            ListCheckpointsRequest(job_id=job_id, page_size=page_size, page_token=page_token),
        )
